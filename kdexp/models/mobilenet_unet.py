"""A small U-Net whose convolutions are those of MobileNet (Howard et al. 2017, arXiv 1704.04861)."""

from collections.abc import Sequence

from torch import nn

from kdexp.models.layers import conv_bn
from kdexp.models.unet import UNet


def mobilenet_unet(num_classes: int, input_shape: Sequence[int], width: int = 8, depth: int = 3) -> nn.Module:
    """The shape of `kdexp.models.unet.unet` with depthwise-separable convolutions: 0.018M parameters.

    A 3x3 convolution becomes a depthwise 3x3 and a 1x1 (MobileNet's figure 3), but for the first one, which reads the
    image (its table 1). Batch norm and ReLU follow the 1x1 alone: with a ReLU between the two, as MobileNet has it, the
    few channels of so small a network learn much more slowly (Chollet 2017, "Xception", arXiv 1610.02357, section 4.7,
    found the same). The decoder doubles the size by repeating pixels, which has no weights.

    Args:
        num_classes: outputs of the network; 1 for a binary task.
        input_shape: (channels, height, width).
        width: channels of the first stage; each later one has twice as many.
        depth: how often the image is halved. The stages of a teacher of equal depth have the same sizes.

    Returns:
        A `kdexp.models.unet.UNet`.

    Raises:
        ValueError: inputs that are not images, width or depth below 1.
    """
    return UNet("mobilenet_unet", num_classes, input_shape, width, depth, _first, _later, _repeat)


def _first(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(channels, out, 3), nn.ReLU(), *_separable(out, out))


def _later(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(*_separable(channels, out), *_separable(out, out))


def _separable(channels: int, out: int) -> nn.Sequential:
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, *conv_bn(channels, out), nn.ReLU())


def _repeat(channels: int) -> tuple[nn.Module, int]:
    return nn.Upsample(scale_factor=2, mode="nearest"), channels
