"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597): encoder, decoder, and skips between them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdexp.contracts import FeatureLayers
from kdexp.models.dense import pad_to_multiple
from kdexp.models.layers import conv_bn, image_channels


def unet(num_classes: int, input_shape: Sequence[int], width: int = 16, depth: int = 3) -> nn.Module:
    """The network of the paper's figure 1, with batch norm and padded convolutions: 0.48M parameters.

    It differs from the paper in what is usual by now: batch norm follows each 3x3 convolution, the convolutions keep
    the size instead of cutting off a border, there is no dropout, and width and depth can be chosen (published: 64 and
    4).

    Args:
        num_classes: outputs of the network; 1 for a binary task.
        input_shape: (channels, height, width).
        width: channels of the first stage; each later one has twice as many.
        depth: how often the image is halved.

    Returns:
        A `UNet`.

    Raises:
        ValueError: inputs that are not images, width or depth below 1.
    """
    return UNet("unet", num_classes, input_shape, width, depth, _convolutions, _convolutions, _up_convolution)


class UNet(nn.Module):
    """Maps images (N, C, H, W) float of any size to logits (N, num_classes, H, W).

    Modules: ``encoder.0`` ... ``encoder.depth`` (after their last ReLU; stage k works on the image halved k times, and
    has ``width * 2^k`` channels), ``decoder.0`` ... ``decoder.(depth - 1)`` (after their last ReLU, from the smallest
    image to the whole one), ``head`` (the 1x1 convolution to the logits). They see the image padded at the right and at
    the bottom to a multiple of 2^depth; the logits are cut off.

    Args:
        name: of the network, for messages.
        num_classes: outputs.
        input_shape: (channels, height, width).
        width: channels of the first stage.
        depth: how often the image is halved.
        first: (channels, channels out) to the layers of the first stage, which keep the size and end with a ReLU.
        later: the same of every other stage.
        up: channels to (the layer that doubles height and width, the channels that it gives).

    Attributes:
        layers: where feature losses read: the stages of the encoder, so that those of equal stride are compared between
            two networks of equal depth; and what the head reads, (N, width, H', W').

    Raises:
        ValueError: inputs that are not images, width or depth below 1.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        input_shape: Sequence[int],
        width: int,
        depth: int,
        first: Callable[[int, int], nn.Sequential],
        later: Callable[[int, int], nn.Sequential],
        up: Callable[[int], tuple[nn.Module, int]],
    ) -> None:
        super().__init__()
        channels = image_channels(name, input_shape)
        for setting, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{setting} of {name} must be at least 1, got {value}")
        widths = [width * 2**stage for stage in range(depth + 1)]
        self.encoder = nn.ModuleList([first(channels, width), *(later(*pair) for pair in pairwise(widths))])
        self.shrink = nn.MaxPool2d(2)
        enlarged = [up(below) for below in reversed(widths[1:])]
        self.up = nn.ModuleList(layer for layer, _ in enlarged)
        self.decoder = nn.ModuleList(
            later(own + from_below, own) for own, (_, from_below) in zip(reversed(widths[:-1]), enlarged, strict=True)
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        _init(self)
        stages = [f"encoder.{stage}" for stage in range(depth + 1)]
        self.layers = FeatureLayers(stages, "head:input", "head", preact=[f"{stage}.-2" for stage in stages])

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes, H, W)."""
        height, width = images.shape[-2:]
        first, *later = self.encoder
        maps = first(pad_to_multiple(images, 2 ** len(self.decoder)))
        skips = []
        for stage in later:
            skips.append(maps)
            maps = stage(self.shrink(maps))
        for up, stage in zip(self.up, self.decoder, strict=True):
            maps = stage(torch.cat((skips.pop(), up(maps)), 1))
        logits: Tensor = self.head(maps)[..., :height, :width]
        return logits


def _convolutions(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(channels, out, 3), nn.ReLU(), *conv_bn(out, out, 3), nn.ReLU())


def _up_convolution(channels: int) -> tuple[nn.Module, int]:
    return nn.ConvTranspose2d(channels, channels // 2, 2, stride=2), channels // 2


def _init(network: nn.Module) -> None:
    """The paper's section 3: normal(0, sqrt(2 / N)) weights, N inputs of a neuron; zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d):  # which does not overlap: a neuron reads one pixel
            nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
