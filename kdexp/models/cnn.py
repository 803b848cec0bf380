"""A plain convolutional network for small images (8 x 8 digits to 32 x 32 photographs)."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from kdexp.models.layers import conv_bn, global_pool, image_channels, init_convolutions


def cnn(num_classes: int, input_shape: Sequence[int], width: int = 16, dropout: float = 0.0) -> nn.Module:
    """Three 3x3 convolutions with batch norm and ReLU; max-pooling halves the image between them.

    Modules: ``stage1``, ``stage2``, ``stage3`` (after their ReLU), ``pool`` (its output (N, 4 * width) is what the
    classifier reads, after dropout), ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width), at least 4 x 4 pixels.
        width: channels of the first stage; each later stage has twice as many.
        dropout: probability in [0, 1] of dropping a feature before the classifier.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: inputs that are not images or too small, width below 1, dropout outside [0, 1].
    """
    channels = image_channels("cnn", input_shape, smallest=4)
    if width < 1:
        raise ValueError(f"width of cnn must be at least 1, got {width}")
    model = nn.Sequential(
        OrderedDict(
            stage1=conv_bn(channels, width, 3).append(nn.ReLU()),
            shrink1=nn.MaxPool2d(2),
            stage2=conv_bn(width, 2 * width, 3).append(nn.ReLU()),
            shrink2=nn.MaxPool2d(2),
            stage3=conv_bn(2 * width, 4 * width, 3).append(nn.ReLU()),
            pool=global_pool(),
            dropout=nn.Dropout(dropout),
            classifier=nn.Linear(4 * width, num_classes),
        )
    )
    init_convolutions(model)
    return model
