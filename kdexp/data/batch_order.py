"""The order of samples: a function of seed and epoch."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Sampler

from kdexp.data.class_sampling import resampled_order
from kdexp.data.stateless_rng import RngStream, order

_POOL = 20  # batches: long enough for lengths to be alike, short enough for an epoch to be in a random order
ALONE = {"rank": 0, "world_size": 1}


class BatchOrder(Sampler[list[int]]):
    """Which positions of a split make up each batch, on one rank; a function of (seed, epoch) only.

    Batches are global: each is cut from one order of all samples, and rank r takes its r-th, (r + world_size)-th, ...
    sample, so that several ranks together see the batches that one would see. Nothing is repeated or padded.

    With `drop_last` every batch has exactly `batch_size` samples and the rest of the order is left out. Without, the
    samples are shared out evenly over as few batches as hold them all, so no batch is much smaller than the others, and
    every rank has at least one sample of every batch (ranks that differ in their number of steps wait for ever).

    With `lengths` a batch has samples of about the same length: the random order is cut into stretches of `_POOL`
    batches, each is sorted by length, and its batches are taken in a random order.

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
        shares: of each class in an epoch, see `kdexp.data.class_sampling.resampled_order`; None: as in the data.
        lengths: (n,) of the samples; None: it does not matter which are together.

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
        lengths: Tensor | None = None,
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
        self._target, self._shares, self._lengths = target, shares, lengths
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
            shuffled = order(self._seed, self.epoch, self._n)
        else:
            assert self._target is not None
            shuffled = resampled_order(self._target, self._shares, self._seed, self.epoch)
        return shuffled if self._lengths is None else self._by_length(shuffled, self._lengths)

    def _by_length(self, shuffled: Tensor, lengths: Tensor) -> Tensor:
        """The order of an epoch, a function of (seed, epoch) as well, with the same samples in it."""
        found: list[Tensor] = []
        places = order(self._seed, self.epoch, len(self), RngStream.POOL)
        for first in range(0, len(self), _POOL):
            bounds = self._bounds[first : first + _POOL + 1]
            pool = shuffled[bounds[0] : bounds[-1]]
            pool = pool[lengths[pool % self._n].argsort(stable=True)]
            batches = torch.split(pool, [stop - start for start, stop in pairwise(bounds)])
            found += [batches[turn] for turn in places[first : first + _POOL].argsort()]
        return torch.cat(found)
