"""Multi-layer perceptron."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def mlp(num_classes: int, input_shape: Sequence[int], hidden: Sequence[int] = (64,), dropout: float = 0.0) -> nn.Module:
    """Fully connected layers with ReLU between them; takes inputs of any shape and flattens them.

    Modules: ``hidden`` (its output (N, hidden[-1]) is what the classifier reads), ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: shape of one sample, without the batch.
        hidden: width of each hidden layer; empty for a linear classifier.
        dropout: probability in [0, 1] of dropping a hidden unit, after each hidden layer.

    Returns:
        Maps (N, *input_shape) float to logits (N, num_classes).

    Raises:
        ValueError: a width that is not positive, or dropout outside [0, 1].
    """
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden of mlp must be widths of at least 1, got {list(hidden)}")
    widths = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, out in zip(widths, hidden, strict=False):
        layers += [nn.Linear(width, out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(OrderedDict(hidden=nn.Sequential(*layers), classifier=nn.Linear(widths[-1], num_classes)))
