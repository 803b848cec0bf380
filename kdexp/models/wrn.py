"""Wide residual networks (Zagoruyko & Komodakis 2016), without dropout, as in the CIFAR-100 distillation benchmark.

``wrn_D_K`` has D layers and K times the width. Modules of all: ``stem``, ``stage1``, ``stage2``, ``stage3`` (blocks
begin with batch norm and ReLU, so a stage's output has neither), ``norm``, ``pool`` (its output (N, 64 * K) is what
the classifier reads), ``classifier``. Every constructor takes ``num_classes`` and ``input_shape`` (channels, height,
width), returns a module from (N, C, H, W) float to logits (N, num_classes), and raises a ValueError for inputs that
are not images.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdexp.models.layers import global_pool, image_channels, init_convolutions


def wrn_16_1(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """16 layers, 0.18M parameters (CIFAR-100)."""
    return _wrn("wrn_16_1", 16, 1, num_classes, input_shape)


def wrn_16_2(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """16 layers, twice as wide, 0.70M parameters (CIFAR-100)."""
    return _wrn("wrn_16_2", 16, 2, num_classes, input_shape)


def wrn_40_1(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """40 layers, 0.57M parameters (CIFAR-100)."""
    return _wrn("wrn_40_1", 40, 1, num_classes, input_shape)


def wrn_40_2(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """40 layers, twice as wide, 2.26M parameters (CIFAR-100)."""
    return _wrn("wrn_40_2", 40, 2, num_classes, input_shape)


def _wrn(name: str, depth: int, widen: int, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    channels = image_channels(name, input_shape)
    blocks = (depth - 4) // 6  # the first and the last layer, and two shortcuts, count too
    widths = [16 * widen, 32 * widen, 64 * widen]
    model = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            stage1=_stage(16, widths[0], blocks, stride=1),
            stage2=_stage(widths[0], widths[1], blocks, stride=2),
            stage3=_stage(widths[1], widths[2], blocks, stride=2),
            norm=nn.Sequential(nn.BatchNorm2d(widths[2]), nn.ReLU()),
            pool=global_pool(),
            classifier=nn.Linear(widths[2], num_classes),
        )
    )
    init_convolutions(model)
    return model


def _stage(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(PreActBlock(channels, out, stride), *[PreActBlock(out, out, 1) for _ in range(blocks - 1)])


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; a shortcut that changes the width starts after them."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = None if channels == out else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H / stride, W / stride)."""
        active = F.relu(self.norm1(inputs))
        shortcut = inputs if self.shortcut is None else self.shortcut(active)
        body: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return body + shortcut
