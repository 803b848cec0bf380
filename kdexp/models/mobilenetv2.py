"""MobileNetV2 for small images (Sandler et al. 2018), as in the CIFAR-100 distillation benchmark (RepDistiller)."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from kdexp.models.layers import conv_bn, global_pool, image_channels, init_convolutions, init_small_linear


def mobilenetv2_half(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Half width, expansion 6: 0.81M parameters (CIFAR-100).

    The benchmark's variant of the paper's table 2: the image is halved four times, not five (stride 1 in the second row
    of the table), ReLU stands for ReLU6, there is no dropout, and the first block keeps its 1x1 expansion.

    Modules: ``stem``, ``stage1`` ... ``stage4`` (the blocks of one image size each; their last layer is a batch norm),
    ``last``, ``pool`` (its output (N, 1280) is what the classifier reads), ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width).

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: inputs that are not images.
    """
    channels = image_channels("mobilenetv2_half", input_shape)
    model = nn.Sequential(
        OrderedDict(
            stem=conv_bn(channels, 16, 3, stride=2).append(nn.ReLU()),
            stage1=nn.Sequential(_row(16, 8, 1, 1, expansion=1), _row(8, 12, 2, 1)),
            stage2=_row(12, 16, 3, 2),
            stage3=nn.Sequential(_row(16, 32, 4, 2), _row(32, 48, 3, 1)),
            stage4=nn.Sequential(_row(48, 80, 3, 2), _row(80, 160, 1, 1)),
            last=conv_bn(160, 1280).append(nn.ReLU()),
            pool=global_pool(),
            classifier=init_small_linear(nn.Linear(1280, num_classes)),
        )
    )
    init_convolutions(model)
    return model


def _row(channels: int, out: int, blocks: int, stride: int, expansion: int = 6) -> nn.Sequential:
    """One row of the paper's table 2."""
    later = [InvertedResidual(out, out, 1, expansion) for _ in range(blocks - 1)]
    return nn.Sequential(InvertedResidual(channels, out, stride, expansion), *later)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; a shortcut where the shape stays."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.expand = conv_bn(channels, inner).append(nn.ReLU())
        self.depthwise = conv_bn(inner, inner, 3, stride, groups=inner).append(nn.ReLU())
        self.project = conv_bn(inner, out)
        self.has_shortcut = stride == 1 and channels == out

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H / stride, W / stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(inputs)))
        return inputs + out if self.has_shortcut else out
