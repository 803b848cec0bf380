"""ShuffleNet (Zhang et al. 2018) for small images, as in the CIFAR-100 distillation benchmark (RepDistiller)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdexp.models.layers import conv_bn, global_pool, image_channels

_GROUPS = 3


def shufflenetv1(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """ShuffleNet 1x with 3 groups: 0.95M parameters (CIFAR-100).

    The benchmark's variant: a 1x1 stride-1 stem without max-pooling, and a ReLU after the depthwise convolution.

    Modules: ``stem``, ``stage1``, ``stage2``, ``stage3`` (after their last ReLU), ``pool`` (its output (N, 960) is what
    the classifier reads), ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width).

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: inputs that are not images.
    """
    channels = image_channels("shufflenetv1", input_shape)
    return nn.Sequential(
        OrderedDict(
            stem=conv_bn(channels, 24).append(nn.ReLU()),
            stage1=_stage(24, 240, units=4, first_groups=1),  # 24 channels are too few to split
            stage2=_stage(240, 480, units=8, first_groups=_GROUPS),
            stage3=_stage(480, 960, units=4, first_groups=_GROUPS),
            pool=global_pool(),
            classifier=nn.Linear(960, num_classes),
        )
    )


def _stage(channels: int, out: int, units: int, first_groups: int) -> nn.Sequential:
    return nn.Sequential(
        DownUnit(channels, out, first_groups), *[Unit(_branch(out, out, 1, _GROUPS)) for _ in range(units - 1)]
    )


def _branch(channels: int, out: int, stride: int, groups: int) -> nn.Sequential:
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1 (figure 2 of the paper)."""
    inner = out // 4
    return nn.Sequential(
        conv_bn(channels, inner, groups=groups).append(nn.ReLU()),
        nn.ChannelShuffle(groups),
        conv_bn(inner, inner, 3, stride, groups=inner).append(nn.ReLU()),
        conv_bn(inner, out, groups=_GROUPS),
    )


class Unit(nn.Module):
    """The branch is added to the input (figure 2b)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.preact = nn.Identity()  # the sum before its ReLU, where some methods read

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return F.relu(self.preact(self.branch(inputs) + inputs))


class DownUnit(nn.Module):
    """The branch halves the image and is concatenated with the input's mean (figure 2c)."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.branch = _branch(channels, out - channels, 2, groups)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H / 2, W / 2)."""
        return F.relu(torch.cat([self.branch(inputs), self.shortcut(inputs)], 1))
