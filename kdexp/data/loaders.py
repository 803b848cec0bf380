"""Where batches come from: tensors in memory, or files read by workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdexp.contracts import Batch, Split
from kdexp.data.batch_order import BatchOrder

PATIENCE = 600
"""Seconds that a batch is waited for. A worker reads a whole batch at a time, from a slow disk together with others."""


class TensorLoader:
    """Batches of a split that is held in memory, by indexing: no work for single samples, no worker processes.

    Attributes:
        sampler: its order; under this name the Trainer looks for ``set_epoch``.
    """

    batch_sampler = None  # the Trainer asks for it wherever there is a sampler

    def __init__(self, split: Split, sampler: BatchOrder) -> None:
        assert isinstance(split.inputs, Tensor)
        self.sampler, self.batch_sampler = sampler, None  # the Trainer looks at both, as a DataLoader has them
        self._inputs, self._target, self._index = split.inputs, split.target, split.index

    def to(self, device: torch.device | str) -> "TensorLoader":
        """Hold the data on a device."""
        self._inputs, self._target = self._inputs.to(device), self._target.to(device)
        self._index = self._index.to(device)
        return self

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch."""
        for positions in self.sampler.tensors(self._index.device):
            if self.sampler.has_copies:
                copy, at = positions // len(self._index), positions % len(self._index)
                index = self._index[at]
                yield Batch(self._inputs[index], self._target[at], index + copy * len(self._inputs))
            else:
                index = self._index.index_select(0, positions)
                yield Batch(self._inputs.index_select(0, index), self._target.index_select(0, positions), index)


class _ReadBatch(Batch):
    """A batch that a worker process has read.

    It is sent through the worker's pipe. Tensors would be sent through /dev/shm, where a container has 64 MB: a worker
    that finds no room there cannot tell it, and its batch is waited for in vain.
    """

    def pin_memory(self) -> Batch:
        return Batch(self.inputs.pin_memory(), self.target.pin_memory(), self.index.pin_memory())

    def __reduce__(self) -> tuple[Callable[..., "_ReadBatch"], tuple[np.ndarray, ...]]:
        return _received, (self.inputs.numpy(), self.target.numpy(), self.index.numpy())


def _received(inputs: np.ndarray, target: np.ndarray, index: np.ndarray) -> _ReadBatch:
    return _ReadBatch(torch.from_numpy(inputs), torch.from_numpy(target), torch.from_numpy(index))


class StreamedDataset(Dataset[Batch | ValueError]):
    """A split that is read sample by sample; its items are whole batches, or what is wrong with a sample."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, positions: list[int]) -> Batch | ValueError:
        copy = torch.tensor(positions) // len(self._split)
        at = torch.tensor(positions) % len(self._split)
        index = self._split.index[at]
        try:
            images = [self._split.inputs[int(i)] for i in index]
        except ValueError as error:  # raised in a worker it would arrive with the worker's traceback in its message
            return error
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            return ValueError(f"dataset.source must give samples of one shape, got {sorted(shapes)}")
        return _ReadBatch(torch.stack(images), self._split.target[at], index + copy * len(self._split.inputs))


class StreamLoader(DataLoader[Batch | ValueError]):
    """Batches of a split that is read sample by sample; whatever fails is one line."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            for found in super().__iter__():
                if isinstance(found, ValueError):
                    raise found
                yield found
        except RuntimeError as error:
            # torch has no exception of its own for a worker that was killed or gives nothing for too long.
            if not str(error).startswith("DataLoader"):
                raise
            reason = str(error).strip().rstrip(".")
            raise OSError(
                f"dataset.num_workers={self.num_workers}: {reason}; 0 reads without worker processes"
            ) from error


@dataclass(frozen=True)
class Prepared:
    """Batches of a loader with something done to them."""

    loader: TensorLoader | StreamLoader
    prepare: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.prepare, self.loader)


class Steps:
    """Batches of a loader, prepared, of which several make an optimizer's step: each knows the targets of all.

    They are prepared a step at a time, because augmentation decides how many rows have a label.

    Attributes:
        sampler: see `TensorLoader`.
    """

    batch_sampler = None

    def __init__(self, loader: TensorLoader | StreamLoader, size: int, prepare: Callable[[Batch], Batch]) -> None:
        self.sampler = loader.sampler
        self._loader, self._size, self._prepare = loader, size, prepare

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = map(self._prepare, self._loader)
        while step := list(islice(batches, self._size)):
            targets = [batch.target for batch in step]
            yield from (replace(batch, step=targets) for batch in step)


@dataclass(frozen=True)
class Epochs:
    """The batches of any epoch of a training, augmented and normalised."""

    loader: TensorLoader | StreamLoader
    prepare: Callable[[Batch, int], Batch]

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.loader)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """One epoch's batches."""
        assert isinstance(self.loader.sampler, BatchOrder)
        self.loader.sampler.set_epoch(epoch)
        return (self.prepare(batch, epoch) for batch in self.loader)


def move_to(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    if batch.inputs.device == device:
        return batch
    inputs, target, index = (x.to(device, non_blocking=True) for x in (batch.inputs, batch.target, batch.index))
    return Batch(inputs, target, index)
