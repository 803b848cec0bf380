"""ShuffleNetV2 (Ma et al. 2018) for small images, as in the CIFAR-100 distillation benchmark (RepDistiller)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdexp.models.layers import conv_bn, global_pool, image_channels


def shufflenetv2(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """ShuffleNetV2 1x: 1.36M parameters (CIFAR-100).

    The benchmark's variant: a 1x1 stride-1 stem without max-pooling.

    Modules: ``stem``, ``stage1``, ``stage2``, ``stage3`` (shuffled), ``last``, ``pool`` (its output (N, 1024) is what
    the classifier reads), ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width).

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: inputs that are not images.
    """
    channels = image_channels("shufflenetv2", input_shape)
    return nn.Sequential(
        OrderedDict(
            stem=conv_bn(channels, 24).append(nn.ReLU()),
            stage1=_stage(24, 116, units=4),
            stage2=_stage(116, 232, units=8),
            stage3=_stage(232, 464, units=4),
            last=conv_bn(464, 1024).append(nn.ReLU()),
            pool=global_pool(),
            classifier=nn.Linear(1024, num_classes),
        )
    )


def _stage(channels: int, out: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(channels, out), *[Unit(out) for _ in range(units - 1)])


def _branch(channels: int, out: int, stride: int) -> nn.Sequential:
    """1x1, depthwise 3x3, 1x1 (figure 3 of the paper, right)."""
    return nn.Sequential(
        conv_bn(channels, out).append(nn.ReLU()),
        conv_bn(out, out, 3, stride, groups=out),
        conv_bn(out, out).append(nn.ReLU()),
    )


class Unit(nn.Module):
    """Half of the channels pass, the other half go through the branch (figure 3c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        kept, changed = inputs.chunk(2, 1)
        return F.channel_shuffle(torch.cat([kept, self.branch(changed)], 1), 2)


class DownUnit(nn.Module):
    """All channels go through both branches, which halve the image (figure 3d)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(
            conv_bn(channels, channels, 3, stride=2, groups=channels), conv_bn(channels, out // 2).append(nn.ReLU())
        )
        self.branch = _branch(channels, out // 2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H / 2, W / 2)."""
        return F.channel_shuffle(torch.cat([self.shortcut(inputs), self.branch(inputs)], 1), 2)
