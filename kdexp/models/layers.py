"""What several families share. A family's modules keep their paths: later losses read features by them."""

from collections.abc import Sequence

from torch import nn


def image_channels(model: str, input_shape: Sequence[int], smallest: int = 1) -> int:
    """The number of channels of image inputs, for a family that takes nothing else.

    Args:
        model: the model's name, for the message.
        input_shape: of one sample.
        smallest: least height and width in pixels that the family can take.

    Raises:
        ValueError: the inputs are not (C, H, W), or smaller than `smallest`.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{model} takes images: input_shape must be (channels, height, width), got {list(input_shape)}"
        )
    if min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{model} takes images of at least {smallest} x {smallest} pixels: "
            f"input_shape must be (channels, height, width), got {list(input_shape)}"
        )
    return input_shape[0]


def conv_bn(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias that keeps the size (divided by stride), and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)
    )


def global_pool() -> nn.Sequential:
    """(N, C, H, W) -> (N, C): the mean over space, the features that the classifier reads."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def init_convolutions(model: nn.Module) -> None:
    """Normal(0, sqrt(2 / fan_out)) weights (He et al. 2015, sec. 2.2, backward case) and zero biases, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_small_linear(layer: nn.Linear) -> nn.Linear:
    """Normal(0, 0.01) weights and zero bias, in place: the classifiers of VGG and MobileNetV2."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
