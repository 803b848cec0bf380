"""Batches: their order, where they come from, and what happens to them on the device."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from kdexp.contracts import Batch, Split, Splits
from kdexp.data import loaders
from kdexp.data.batch_order import ALONE, BatchOrder
from kdexp.data.loaders import Epochs, Prepared, Steps, StreamedDataset, StreamLoader, TensorLoader, move_to
from kdexp.data.normalization import in_unit_range, normalized, statistic
from kdexp.data.splits import stratified_order
from kdexp.data.stateless_rng import RngStream
from kdexp.data.texts import are_texts, characters

Transform = Callable[..., Batch]
"""See `kdexp.data.augment`."""


class DataModule(pl.LightningDataModule):
    """The data of one training: loaders for the Trainer, and what is done to a batch on the device.

    There, uint8 images become float32 in [0, 1]; training batches are augmented; then all are normalised. Texts stay
    what they are, and the training batches are of texts of about the same length.

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
        input_shape: what the shape of a training sample must be after its augmentation; None: any.
        shares: of each class in an epoch of training, see `kdexp.data.class_sampling.resampled_order`; None: as in the
            data.
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
        input_shape: Sequence[int] | None = None,
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
        texts = splits.train.inputs
        of_train = texts[splits.train.index] if isinstance(texts, Tensor) and are_texts(texts) else None
        self._lengths = None if of_train is None else characters(of_train)
        shape = splits.train.inputs[0].shape
        self._mean, self._std = statistic("mean", mean, shape), statistic("std", std, shape)
        if not (self._std > 0).all():
            raise ValueError(f"dataset.std must be > 0, got {list(std)}")
        self.resident: dict[tuple[int, torch.device], Tensor] = {}
        # What does not fit is found out now.
        next(self._order(splits.train, training=True).tensors())
        first = splits.train.index[:2]
        images = torch.stack([splits.train.inputs[int(i)] for i in first])
        prepared = self._prepare(Batch(images, splits.train.target[:2], first), view=None if views == 0 else 0)
        found = list(prepared.inputs.shape[1:])
        if input_shape is not None and found != list(input_shape):
            rule = f"must be {found}, the shape of a training sample after its augmentation"
            raise ValueError(f"dataset.input_shape {rule}, got {list(input_shape)}")

    @property
    def smallest_batch(self) -> int:
        """Training samples of the smallest batch, of all ranks together."""
        return self._order(self.splits.train, training=True).smallest

    @property
    def train_batches(self) -> int:
        """Training batches in an epoch, the same on every rank."""
        return len(self._order(self.splits.train, training=True))

    # For the Trainer

    def train_dataloader(self) -> Iterable[Batch]:
        """This rank's share of the training batches."""
        assert self.trainer is not None
        loader = self._loader("train", self._device(), self._place(), training=True)
        size = self.trainer.accumulate_grad_batches
        return loader if size == 1 else Steps(loader, size, self._of_step)

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
        return stratified_order(self.splits.val.target, 0, RngStream.SAMPLE)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Bring a batch to the device."""
        return move_to(batch, device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """What is done to a batch on the device."""
        assert self.trainer is not None
        if batch.step:
            return batch
        if not self.trainer.training:
            return self._prepare(batch, view=None)
        return self._prepare_training(batch, self.trainer.current_epoch)

    def _of_step(self, batch: Batch) -> Batch:
        assert self.trainer is not None
        return self._prepare_training(move_to(batch, self._device()), self.trainer.current_epoch)

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
        return Prepared(loader, lambda batch: self._prepare(move_to(batch, device), view))

    def epochs(self, device: torch.device | str) -> "Epochs":
        """The training batches on a device, as the Trainer's only process would see them."""
        device = torch.device(device)
        return Epochs(
            self._loader("train", device, training=True),
            lambda batch, epoch: self._prepare_training(move_to(batch, device), epoch),
        )

    def _place(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _device(self) -> torch.device:
        assert self.trainer is not None
        return self.trainer.strategy.root_device

    def _order(self, split: Split, place: Mapping[str, int] = ALONE, *, training: bool = False) -> BatchOrder:
        return BatchOrder(
            len(split),
            self._batch_size if training else self._eval_batch_size,
            shuffle=training,
            drop_last=training and self._drop_last,
            seed=self._seed,
            target=self.splits.train.target if training else None,
            shares=self._shares if training else None,
            lengths=self._lengths if training else None,
            **place,
        )

    def _loader(
        self,
        name: str,
        device: torch.device,
        place: Mapping[str, int] = ALONE,
        *,
        training: bool = False,
        positions: Tensor | None = None,
    ) -> TensorLoader | StreamLoader:
        split: Split = getattr(self.splits, name)
        if positions is not None:
            split = replace(split, target=split.target[positions], index=split.index[positions])
        batches = self._order(split, place, training=training)
        if isinstance(split.inputs, Tensor):
            return TensorLoader(replace(split, inputs=self._on(split.inputs, device)), batches).to(device)
        return StreamLoader(
            StreamedDataset(split),
            sampler=batches,
            batch_size=None,  # the sampler's items index the data set: whole batches
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            timeout=loaders.PATIENCE if self._num_workers else 0,
            pin_memory=device.type == "cuda",
            # Its own, because a loader draws a number at each start, and dropout must not depend on that.
            generator=torch.Generator(),
        )

    def _on(self, inputs: Tensor, device: torch.device) -> Tensor:
        """The samples on a device, brought there once for all splits and loaders."""
        key = (id(inputs), device)
        if key not in self.resident:
            self.resident[key] = inputs.to(device)
        return self.resident[key]

    def _prepare(self, batch: Batch, view: int | None) -> Batch:
        for transform in self._augment if view is not None else ():
            if not getattr(transform, "moves_pixels", False):
                batch = replace(batch, inputs=in_unit_range(batch.inputs))
            batch = transform(batch, seed=self._augment_seed, epoch=view)
        self._mean, self._std = self._mean.to(batch.inputs.device), self._std.to(batch.inputs.device)
        # Masks are held in bytes.
        target = batch.target.long() if batch.target.dtype == torch.int8 else batch.target
        return Batch(normalized(batch.inputs, self._mean, self._std), target, batch.index)
