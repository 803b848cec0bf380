"""Batches of any loader."""

from collections.abc import Sequence

from torch import Tensor

from kdexp.contracts import Batch


def as_batch(batch: Batch | Sequence[Tensor]) -> Batch:
    """A batch of any loader.

    Args:
        batch: a `Batch`, or (inputs, target) or (inputs, target, index).

    Raises:
        ValueError: anything else.
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, list | tuple) and len(batch) in (2, 3) and all(isinstance(part, Tensor) for part in batch):
        return Batch(*batch)
    inside = f" of {', '.join(type(part).__name__ for part in batch)}" if isinstance(batch, list | tuple) else ""
    raise ValueError(f"a batch must be tensors (x, y) or (x, y, index), got {type(batch).__name__}{inside}")
