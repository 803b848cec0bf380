"""Residual networks for 32 x 32 images (He et al. 2016, "Deep Residual Learning for Image Recognition", sec. 4.2).

As in the CIFAR-100 distillation benchmark (Tian et al. 2020, RepDistiller): basic blocks, and a 1x1 convolution with
batch norm where a block changes the width or the size (He et al.'s option B). "x4" networks are four times as wide.

Modules of all: ``stem``, ``stage1``, ``stage2``, ``stage3`` (after their last ReLU), ``pool`` (its output (N, F) is
what the classifier reads), ``classifier``. Every constructor takes ``num_classes`` and ``input_shape`` (channels,
height, width), returns a module from (N, C, H, W) float to logits (N, num_classes), and raises a ValueError for inputs
that are not images.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdexp.models.layers import conv_bn, global_pool, image_channels, init_convolutions


def resnet8(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """8 layers, 0.08M parameters (CIFAR-100)."""
    return _resnet("resnet8", 8, (16, 16, 32, 64), num_classes, input_shape)


def resnet14(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """14 layers, 0.18M parameters (CIFAR-100)."""
    return _resnet("resnet14", 14, (16, 16, 32, 64), num_classes, input_shape)


def resnet20(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """20 layers, 0.28M parameters (CIFAR-100)."""
    return _resnet("resnet20", 20, (16, 16, 32, 64), num_classes, input_shape)


def resnet32(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """32 layers, 0.47M parameters (CIFAR-100)."""
    return _resnet("resnet32", 32, (16, 16, 32, 64), num_classes, input_shape)


def resnet44(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """44 layers, 0.67M parameters (CIFAR-100)."""
    return _resnet("resnet44", 44, (16, 16, 32, 64), num_classes, input_shape)


def resnet56(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """56 layers, 0.86M parameters (CIFAR-100)."""
    return _resnet("resnet56", 56, (16, 16, 32, 64), num_classes, input_shape)


def resnet110(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """110 layers, 1.74M parameters (CIFAR-100)."""
    return _resnet("resnet110", 110, (16, 16, 32, 64), num_classes, input_shape)


def resnet8x4(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """8 layers, four times as wide, 1.23M parameters (CIFAR-100)."""
    return _resnet("resnet8x4", 8, (32, 64, 128, 256), num_classes, input_shape)


def resnet32x4(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """32 layers, four times as wide, 7.43M parameters (CIFAR-100)."""
    return _resnet("resnet32x4", 32, (32, 64, 128, 256), num_classes, input_shape)


def _resnet(
    name: str, depth: int, widths: tuple[int, int, int, int], num_classes: int, input_shape: Sequence[int]
) -> nn.Module:
    channels = image_channels(name, input_shape)
    blocks = (depth - 2) // 6  # three stages of blocks with two convolutions, and the first and the last layer
    model = nn.Sequential(
        OrderedDict(
            stem=conv_bn(channels, widths[0], 3).append(nn.ReLU()),
            stage1=_stage(widths[0], widths[1], blocks, stride=1),
            stage2=_stage(widths[1], widths[2], blocks, stride=2),
            stage3=_stage(widths[2], widths[3], blocks, stride=2),
            pool=global_pool(),
            classifier=nn.Linear(widths[3], num_classes),
        )
    )
    init_convolutions(model)
    return model


def _stage(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels, out, stride), *[BasicBlock(out, out, 1) for _ in range(blocks - 1)])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, out, 3, stride)
        self.conv2 = conv_bn(out, out, 3)
        self.shortcut = nn.Identity() if stride == 1 and channels == out else conv_bn(channels, out, 1, stride)
        self.preact = nn.Identity()  # the sum before its ReLU, where some methods read

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H / stride, W / stride)."""
        return F.relu(self.preact(self.conv2(F.relu(self.conv1(inputs))) + self.shortcut(inputs)))
