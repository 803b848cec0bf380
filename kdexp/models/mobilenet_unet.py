"""A small U-Net whose convolutions are those of MobileNet (Howard et al. 2017, arXiv 1704.04861)."""

from collections.abc import Sequence

from torch import nn

from kdexp.models.layers import conv_bn
from kdexp.models.unet import UNet


def mobilenet_unet(num_classes: int, input_shape: Sequence[int], width: int = 8, depth: int = 3) -> nn.Module:
    """The shape of `kdexp.models.unet.unet` with depthwise-separable convolutions: 0.018M parameters.

    A 3x3 convolution becomes a depthwise 3x3 and a 1x1, each with batch norm and ReLU (figure 3 of the paper), but for
    the first one, which reads the image (its table 1). The decoder doubles the size by bilinear interpolation, which
    has no weights.

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
    return UNet("mobilenet_unet", num_classes, input_shape, width, depth, _first, _later, _interpolation)


def _first(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(channels, out, 3), nn.ReLU(), *_separable(out, out))


def _later(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(*_separable(channels, out), *_separable(out, out))


def _separable(channels: int, out: int) -> nn.Sequential:
    depthwise, pointwise = conv_bn(channels, channels, 3, groups=channels), conv_bn(channels, out)
    return nn.Sequential(*depthwise, nn.ReLU(), *pointwise, nn.ReLU())


def _interpolation(channels: int) -> tuple[nn.Module, int]:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), channels
