"""What networks of segmentation share: they take images of any size and give logits of that size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.models.complexity import dry_run


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and at the bottom, until height and width are multiples.

    Zero is the mean color of normalised images, and what convolutions pad with. The network cuts its output off again:
    ``logits[..., :height, :width]``.

    Args:
        images: (N, C, H, W).
        multiple: at least 1.

    Returns:
        (N, C, H', W'), with ``H <= H' < H + multiple``, likewise W'.
    """
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def check_dense(model: nn.Module, name: str, num_classes: int, input_shape: Sequence[int]) -> None:
    """Find out before any training whether a network takes the images and gives logits of their size.

    Args:
        model: the network; it is not run and stays as it is.
        name: its name, for messages.
        num_classes: C, the outputs that it must have.
        input_shape: (channels, height, width).

    Raises:
        ValueError: it does not.
    """
    wanted = (1, num_classes, *input_shape[1:])
    try:
        logits = dry_run(model, input_shape)
    except Exception as error:  # each network has its own way of refusing
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} must take input_shape {list(input_shape)}, got {reason}") from error
    found = tuple(getattr(logits, "shape", ()))
    if found != wanted:
        raise ValueError(f"{name} must return logits {wanted}, got {found or type(logits).__name__}")
