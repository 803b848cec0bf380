"""Batches: their order, where they come from, and what happens to them on the device."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kdexp.contracts import Batch, Split, Splits
from kdexp.data.counter import Stream, order
from kdexp.data.resample import resampled_order
from kdexp.data.splits import stratified_order

Transform = Callable[..., Batch]
"""See `kdexp.data.augment`."""

_ALONE = {"rank": 0, "world_size": 1}

_PATIENCE = 600
"""Seconds that a batch is waited for. A worker reads a whole batch at a time, from a slow disk together with others."""


class BatchOrder(Sampler[list[int]]):
    """Which positions of a split make up each batch, on one rank; a function of (seed, epoch) only.

    Batches are global: each is cut from one order of all samples, and rank r takes its r-th, (r + world_size)-th, ...
    sample, so that several ranks together see the batches that one would see. Nothing is repeated or padded.

    With `drop_last` every batch has exactly `batch_size` samples and the rest of the order is left out. Without, the
    samples are shared out evenly over as few batches as hold them all, so no batch is much smaller than the others, and
    every rank has at least one sample of every batch (ranks that differ in their number of steps wait for ever).

    With `shares` an epoch is as long as ever, but has some samples several times and others not at all: the c-th copy
    (from 0) of position p is given as p + c * n.

    Args:
        n: samples in the split.
        batch_size: samples of all ranks together; with drop_last divisible by world_size.
        shuffle: a new random order each epoch, or always 0..n-1.
        drop_last: see above.
        seed: of the order.
        rank: which share is wanted.
        world_size: number of ranks.
        target: (n,) int64, the labels that shares refer to.
        shares: of each class in an epoch, see `kdexp.data.resample.resampled_order`; None: as in the data.

    Raises:
        ValueError: no batch can be made, or not one for every rank.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        target: Tensor | None = None,
        shares: Sequence[float] | None = None,
    ) -> None:
        if drop_last and batch_size % world_size:
            raise ValueError(f"dataset.batch_size must be divisible by the {world_size} ranks, got {batch_size}")
        if drop_last and n < batch_size:
            raise ValueError(
                f"dataset.batch_size must be at most the {n} training samples with dataset.drop_last=true, "
                f"got {batch_size}"
            )
        if n < world_size:
            raise ValueError(f"trainer.devices must be at most the samples of each split, {n}, got {world_size} ranks")
        batches = n // batch_size if drop_last else min(-(-n // batch_size), n // world_size)
        kept = batches * batch_size if drop_last else n
        self._bounds = [batch * kept // batches for batch in range(batches + 1)]
        self._n, self._shuffle, self._seed = n, shuffle, seed
        self._rank, self._world_size = rank, world_size
        self._target, self._shares = target, shares
        self.has_copies = shares is not None
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order the next iteration gives; the Trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches in an epoch, the same on every rank."""
        return len(self._bounds) - 1

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch, of all ranks together."""
        return min(stop - start for start, stop in zip(self._bounds, self._bounds[1:], strict=False))

    def tensors(self, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """The epoch's batches as (n,) int64 positions on a device, to which they are brought all at once."""
        positions = self._epoch().to(device)
        for start, stop in zip(self._bounds, self._bounds[1:], strict=False):
            yield positions[start + self._rank : stop : self._world_size]

    def __iter__(self) -> Iterator[list[int]]:
        """The epoch's batches as lists of positions."""
        return (positions.tolist() for positions in self.tensors())

    def _epoch(self) -> Tensor:
        if not self._shuffle:
            return torch.arange(self._n)
        if self._shares is None:
            return order(self._seed, self.epoch, self._n)
        assert self._target is not None
        return resampled_order(self._target, self._shares, self._seed, self.epoch)


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


def _received(*arrays: np.ndarray) -> _ReadBatch:
    return _ReadBatch(*map(torch.from_numpy, arrays))


class _Stream(Dataset[Batch | ValueError]):
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


class _StreamLoader(DataLoader[Batch | ValueError]):
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
class _Prepared:
    """Batches of a loader with something done to them."""

    loader: TensorLoader | _StreamLoader
    prepare: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.prepare, self.loader)


@dataclass(frozen=True)
class Epochs:
    """The batches of any epoch of a training, augmented and normalised."""

    loader: TensorLoader | _StreamLoader
    prepare: Callable[[Batch, int], Batch]

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.loader)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """One epoch's batches."""
        assert isinstance(self.loader.sampler, BatchOrder)
        self.loader.sampler.set_epoch(epoch)
        return (self.prepare(batch, epoch) for batch in self.loader)


class DataModule(pl.LightningDataModule):
    """The data of one training: loaders for the Trainer, and what is done to a batch on the device.

    There, uint8 images become float32 in [0, 1]; training batches are augmented; then all are normalised.

    Args:
        splits: the data.
        augment: transforms of training batches, in this order; see `kdexp.data.augment`.
        mean: what is subtracted: a value for each channel of images (C, H, W), for each feature (the last dimension) of
            anything else, or one for all.
        std: what is divided by, likewise; > 0.
        batch_size: training samples of all ranks together.
        eval_batch_size: the same for validation and test.
        drop_last: leave out the rest of the training samples that does not fill a batch.
        seed: of the order.
        augment_seed: of the augmentation; by default that of the order.
        views: how many views of each sample there are: epoch e shows view e mod views, and a view is a function of
            (augment_seed, view, sample). None: a new one in every epoch. 0: the samples as they are.
        num_workers: processes that read samples which are not held in memory.
        shares: of each class in an epoch of training, see `kdexp.data.resample.resampled_order`; None: as in the data.
            The copies of a sample are augmented each in its own way.

    Attributes:
        resident: the samples on each device, by the id of where they come from.

    Raises:
        ValueError: sizes or shapes do not fit; one line with the setting.
    """

    def __init__(
        self,
        splits: Splits,
        *,
        augment: Sequence[Transform],
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        eval_batch_size: int,
        drop_last: bool,
        seed: int,
        augment_seed: int | None = None,
        views: int | None = None,
        num_workers: int = 0,
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.splits = splits
        self._shares = shares
        self._augment = list(augment)
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._drop_last, self._seed, self._num_workers = drop_last, seed, num_workers
        self._augment_seed = seed if augment_seed is None else augment_seed
        self._views = views
        shape = splits.train.inputs[0].shape
        self._mean, self._std = _statistic("mean", mean, shape), _statistic("std", std, shape)
        if not (self._std > 0).all():
            raise ValueError(f"dataset.std must be > 0, got {list(std)}")
        self.resident: dict[tuple[int, torch.device], Tensor] = {}
        # What does not fit is found out now.
        next(self._order(splits.train, training=True).tensors())
        first = splits.train.index[:2]
        images = torch.stack([splits.train.inputs[int(i)] for i in first])
        self._prepare(Batch(images, splits.train.target[:2], first), view=0)

    @property
    def smallest_batch(self) -> int:
        """Training samples of the smallest batch, of all ranks together."""
        return self._order(self.splits.train, training=True).smallest

    # For the Trainer

    def train_dataloader(self) -> Iterable[Batch]:
        """This rank's share of the training batches."""
        return self._loader("train", self._device(), self._place(), training=True)

    def val_dataloader(self) -> Iterable[Batch]:
        """This rank's share of the validation batches.

        With ``limit_val_batches`` the first of them are all that is seen: their order is then a stratified random one.
        """
        assert self.trainer is not None
        return self._loader("val", self._device(), self._place(), positions=self.val_order(self.trainer))

    def val_order(self, trainer: pl.Trainer) -> Tensor | None:
        """The order of the validation samples, as positions; None: that of the split."""
        limit = trainer.limit_val_batches
        if isinstance(limit, float) and limit == 1:  # all of them; an int is a number of batches
            return None
        return stratified_order(self.splits.val.target, 0, Stream.SAMPLE)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Bring a batch to the device."""
        return _to(batch, device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """What is done to a batch on the device."""
        assert self.trainer is not None
        if not self.trainer.training:
            return self._prepare(batch, view=None)
        return self._prepare_training(batch, self.trainer.current_epoch)

    def _prepare_training(self, batch: Batch, epoch: int) -> Batch:
        batch = self._prepare(batch, self.view(epoch))
        if self._shares is not None:
            # Until here a sample's second copy has an id of its own, so that it is not augmented like the first.
            batch = replace(batch, index=batch.index % len(self.splits.train.inputs))
        return batch

    def view(self, epoch: int) -> int | None:
        """The view of the training samples that an epoch shows; None: as they are."""
        if self._views is None:
            return epoch
        return epoch % self._views if self._views else None

    # Without a Trainer

    def eval_batches(
        self,
        split: Literal["train", "val", "test"],
        device: torch.device | str,
        view: int | None = None,
        positions: Tensor | None = None,
    ) -> Iterable[Batch]:
        """All batches of a split in a fixed order on a device, normalised, for one process.

        Args:
            split: its name.
            device: where the batches are to be.
            view: how they are augmented; None: not at all.
            positions: (n,) int64, the samples wanted, by their place in the split; None: all.

        Returns:
            Batches, of at most eval_batch_size samples; they have a length, the number of batches.
        """
        device = torch.device(device)
        loader = self._loader(split, device, positions=positions)
        return _Prepared(loader, lambda batch: self._prepare(_to(batch, device), view))

    def epochs(self, device: torch.device | str) -> "Epochs":
        """The training batches on a device, as the Trainer's only process would see them."""
        device = torch.device(device)
        return Epochs(
            self._loader("train", device, training=True),
            lambda batch, epoch: self._prepare_training(_to(batch, device), epoch),
        )

    def _place(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _device(self) -> torch.device:
        assert self.trainer is not None
        return self.trainer.strategy.root_device

    def _order(self, split: Split, place: Mapping[str, int] = _ALONE, *, training: bool = False) -> BatchOrder:
        return BatchOrder(
            len(split),
            self._batch_size if training else self._eval_batch_size,
            shuffle=training,
            drop_last=training and self._drop_last,
            seed=self._seed,
            target=self.splits.train.target if training else None,
            shares=self._shares if training else None,
            **place,
        )

    def _loader(
        self,
        name: str,
        device: torch.device,
        place: Mapping[str, int] = _ALONE,
        *,
        training: bool = False,
        positions: Tensor | None = None,
    ) -> TensorLoader | _StreamLoader:
        split: Split = getattr(self.splits, name)
        if positions is not None:
            split = replace(split, target=split.target[positions], index=split.index[positions])
        batches = self._order(split, place, training=training)
        if isinstance(split.inputs, Tensor):
            return TensorLoader(replace(split, inputs=self._on(split.inputs, device)), batches).to(device)
        options: dict[str, Any] = {
            "num_workers": self._num_workers,
            "persistent_workers": self._num_workers > 0,
            "timeout": _PATIENCE if self._num_workers else 0,
            "pin_memory": device.type == "cuda",
            # Its own, because a loader draws a number at each start, and dropout must not depend on that.
            "generator": torch.Generator(),
        }
        # With batch_size=None the sampler's items, here whole batches, are what the dataset is asked for.
        return _StreamLoader(_Stream(split), sampler=batches, batch_size=None, **options)

    def _on(self, inputs: Tensor, device: torch.device) -> Tensor:
        """The samples on a device, brought there once for all splits and loaders."""
        key = (id(inputs), device)
        if key not in self.resident:
            self.resident[key] = inputs.to(device)
        return self.resident[key]

    def _prepare(self, batch: Batch, view: int | None) -> Batch:
        for transform in self._augment if view is not None else ():
            if not getattr(transform, "moves_pixels", False):
                batch = _in_unit_range(batch)
            batch = transform(batch, seed=self._augment_seed, epoch=view)
        batch = _in_unit_range(batch)
        self._mean, self._std = self._mean.to(batch.inputs.device), self._std.to(batch.inputs.device)
        return Batch((batch.inputs - self._mean) / self._std, batch.target, batch.index)


def _in_unit_range(batch: Batch) -> Batch:
    return replace(batch, inputs=batch.inputs / 255) if batch.inputs.dtype == torch.uint8 else batch


def _to(batch: Batch, device: torch.device) -> Batch:
    if batch.inputs.device == device:
        return batch
    inputs, target, index = (x.to(device, non_blocking=True) for x in (batch.inputs, batch.target, batch.index))
    return Batch(inputs, target, index)


def _statistic(name: str, values: Sequence[float], shape: torch.Size) -> Tensor:
    channels, trailing = (shape[0], 2) if len(shape) == 3 else (shape[-1], 0)
    if len(values) not in (1, channels):
        raise ValueError(f"dataset.{name} must have 1 or {channels} values for inputs {list(shape)}, got {len(values)}")
    return torch.tensor(values).view(-1, *[1] * trailing)
