"""VGG for small images (Simonyan & Zisserman 2015), as in the CIFAR-100 distillation benchmark (RepDistiller).

Batch norm after each convolution, and one linear layer after a global mean instead of three. Modules of all:
``stage1`` ... ``stage5`` (after their last ReLU, before max-pooling), ``pool`` (its output (N, 512) is what the
classifier reads), ``classifier``. Every constructor takes ``num_classes`` and ``input_shape`` (channels, height, width)
of at least 8 x 8 pixels, returns a module from (N, C, H, W) float to logits (N, num_classes), and raises a ValueError
for other inputs.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from kdexp.models.layers import global_pool, image_channels, init_convolutions, init_small_linear


def vgg8(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """One convolution a stage, 3.96M parameters (CIFAR-100)."""
    return _vgg("vgg8", (1, 1, 1, 1, 1), num_classes, input_shape)


def vgg11(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """1, 1, 2, 2, 2 convolutions (configuration A), 9.28M parameters (CIFAR-100)."""
    return _vgg("vgg11", (1, 1, 2, 2, 2), num_classes, input_shape)


def vgg13(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Two convolutions a stage (configuration B), 9.46M parameters (CIFAR-100)."""
    return _vgg("vgg13", (2, 2, 2, 2, 2), num_classes, input_shape)


def vgg16(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """2, 2, 3, 3, 3 convolutions (configuration D), 14.77M parameters (CIFAR-100)."""
    return _vgg("vgg16", (2, 2, 3, 3, 3), num_classes, input_shape)


def vgg19(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """2, 2, 4, 4, 4 convolutions (configuration E), 20.09M parameters (CIFAR-100)."""
    return _vgg("vgg19", (2, 2, 4, 4, 4), num_classes, input_shape)


def _vgg(name: str, convolutions: Sequence[int], num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    channels = image_channels(name, input_shape, smallest=8)
    widths = (64, 128, 256, 512, 512)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (width, depth) in enumerate(zip(widths, convolutions, strict=True), start=1):
        modules[f"stage{i}"] = _stage(channels, width, depth)
        # The benchmark leaves the fourth max-pooling out on 32 x 32 images.
        if i < 4 or (i == 4 and min(input_shape[1:]) >= 64):
            modules[f"shrink{i}"] = nn.MaxPool2d(2)
        channels = width
    modules["pool"] = global_pool()
    modules["classifier"] = init_small_linear(nn.Linear(512, num_classes))
    model = nn.Sequential(modules)
    init_convolutions(model)
    return model


def _stage(channels: int, out: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(channels if i == 0 else out, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)
