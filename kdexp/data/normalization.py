"""What is done to inputs before a network sees them, in training, in evaluation and in an exported student."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.data.texts import are_texts


def in_unit_range(inputs: Tensor) -> Tensor:
    """uint8 images in 0..255 as float32 in [0, 1]; anything else as it is."""
    return inputs / 255 if inputs.dtype == torch.uint8 else inputs


def normalized(inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(inputs - mean) / std``, images in [0, 1]; texts, (N, L) int32 code points, as they are.

    Args:
        inputs: (N, ...), see `kdexp.contracts.Batch`.
        mean: see `statistic`.
        std: likewise.
    """
    return inputs if are_texts(inputs) else (in_unit_range(inputs) - mean) / std


def statistic(name: str, values: Sequence[float], shape: Sequence[int]) -> Tensor:
    """Mean or standard deviation of inputs, so that they can be subtracted or divided by.

    Args:
        name: ``mean`` or ``std``, for the message.
        values: one for each channel of images (C, H, W), for each feature (the last dimension) of anything else, or one
            for all.
        shape: of a sample.

    Returns:
        (channels or 1, 1, 1) or (features or 1,) float32.

    Raises:
        ValueError: there are others.
    """
    channels, trailing = (shape[0], 2) if len(shape) == 3 else (shape[-1], 0)
    if len(values) not in (1, channels):
        numbers = "1 value" if channels == 1 else f"1 or {channels} values"
        raise ValueError(f"dataset.{name} must have {numbers} for inputs {list(shape)}, got {len(values)}")
    return torch.tensor(values).view(-1, *[1] * trailing)
