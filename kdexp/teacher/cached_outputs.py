"""A teacher's outputs, cached on disk: one forward pass for each view of a sample, however many epochs and runs.

What is kept are logits, not probabilities, so that alpha and the temperature can be swept; of several teachers those of
each, because their mean is taken at the temperature. Nothing of the samples is kept: a view is a function of
(seed, view, sample), and is made again when it is needed.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdexp.atomic import writing_to_store
from kdexp.contracts import Batch, Outputs, SplitName
from kdexp.data.data_module import DataModule
from kdexp.data.splits import stratified_sample
from kdexp.progress_log import paced
from kdexp.teacher import cache_folders
from kdexp.teacher.cache_folders import CHECKSUMS, DIGEST, LOCK, OUTPUTS, file_in, filled_views, keep_metadata, used
from kdexp.teacher.output_codec import OutputCodec
from kdexp.teacher.teacher import Teacher

log = logging.getLogger(__name__)

_RESIDENT = 32 * 2**20
"""A view of so many bytes is held in memory (on the device) while it is used; larger ones are read from the file."""
_MAPPED = 16 * 2**20
"""So many bytes of a file are at most in the process's own memory; the system's page cache may have more."""
_AROUND = 64 * 2**10  # what the kernel brings in with a page


class CachedOutputs:
    """The cached outputs for one split, in a folder of their own that any number of processes may use at once.

    ``outputs.bin`` is [views][samples] records, written as they come and memory-mapped to be read; ``checksums.bin`` is
    [views][shards] SHA-256 digests, each written after its shard. A shard counts as filled when its digest fits: what a
    kill, a full disk or a bad sector left is found and recomputed, never used. ``metadata.json`` says what the outputs
    depend on.

    Args:
        folder: made if need be.
        metadata: written when the folder is new; plain values.
        record: see `OutputCodec`.
        index: (n,) int64, the ids of the split's samples.
        compute: gives the outputs for a view (None: samples as they are) of a range of positions, in batches.

    Attributes:
        samples: how many the split has.
    """

    def __init__(
        self,
        folder: Path,
        metadata: Mapping[str, object],
        record: OutputCodec,
        index: Tensor,
        compute: Callable[[int | None, range], Iterable[Sequence[Outputs]]],
    ) -> None:
        self.folder, self.record = folder, record
        self.samples, self._compute = len(index), compute
        self._shards = -(-len(index) // cache_folders.SHARD)
        # From a sample's id to its position.
        self._position = torch.full((int(index.max()) + 1,), -1, dtype=torch.int64)
        self._position[index] = torch.arange(len(index))
        keep_metadata(folder, metadata)
        self._file = file_in(folder, OUTPUTS)
        self._outputs, self._checksums = _open(self, self._file), _open(self, folder / CHECKSUMS)
        self._good: set[tuple[int, int]] = set()
        self._loaded: tuple[int, dict[str, Tensor]] | None = None
        self._map: mmap.mmap | None = None
        self._touched = 0

    @property
    def bytes_per_view(self) -> int:
        """What one view takes on the disk."""
        return int(self.samples * self.record.dtype.itemsize)

    def prepare(self, view: int | None) -> None:
        """See to it that a view is there and whole; processes that do this at once share the work out."""
        slot = view or 0
        left = [shard for shard in range(self._shards) if (slot, shard) not in self._good]
        while left:
            busy = [shard for shard in left if not self._settle(view, shard, wait=False)]
            if busy == left:  # all are being filled by others
                self._settle(view, busy.pop(0), wait=True)
            left = busy

    def _settle(self, view: int | None, shard: int, *, wait: bool) -> bool:
        """Check a shard, or fill it; False when another process is at it."""
        slot = view or 0
        if not self._is_whole(slot, shard):
            with self._locked(slot * self._shards + shard, wait=wait) as mine:
                if not mine:
                    return False
                if not self._is_whole(slot, shard):
                    self._fill(view, shard)
        self._good.add((slot, shard))
        return True

    def _range(self, shard: int) -> range:
        return range(shard * cache_folders.SHARD, min((shard + 1) * cache_folders.SHARD, self.samples))

    def _offset(self, slot: int, position: int) -> int:
        return (slot * self.samples + position) * int(self.record.dtype.itemsize)

    def _is_whole(self, slot: int, shard: int) -> bool:
        expected = os.pread(self._checksums, DIGEST, (slot * self._shards + shard) * DIGEST)
        if not any(expected):
            return False
        positions = self._range(shard)
        stop, offset = self._offset(slot, positions.stop), self._offset(slot, positions.start)
        digest = hashlib.sha256()
        while offset < stop:
            part = os.pread(self._outputs, min(stop - offset, 2**22), offset)
            if not part:
                break
            digest.update(part)
            offset += len(part)
        whole = digest.digest() == expected
        if not whole:
            log.warning("teacher cache: %s is corrupt; the teacher is run again", self._file)
        return whole

    def _fill(self, view: int | None, shard: int) -> None:
        slot, positions = view or 0, self._range(shard)
        place = (slot * self._shards + shard) * DIGEST
        os.pwrite(self._checksums, bytes(DIGEST), place)
        offset, digest = self._offset(slot, positions.start), hashlib.sha256()
        for members in self._compute(view, positions):
            content = self.record.encode(members).tobytes()
            digest.update(content)
            while content:  # a signal or a limit may cut a write short
                written = os.pwrite(self._outputs, content, offset)
                content, offset = content[written:], offset + written
        assert offset == self._offset(slot, positions.stop)
        os.pwrite(self._checksums, digest.digest(), place)

    @contextmanager
    def _locked(self, number: int, *, wait: bool) -> Iterator[bool]:
        """Hold the lock of a shard, a byte of a file: the system gives it back when a process dies."""
        with writing_to_store(self.folder):
            file = (self.folder / LOCK).open("ab")
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
            except BlockingIOError:
                yield False
            else:
                yield True

    def __call__(self, index: Tensor, view: int | None, temperature: float) -> list[Outputs]:
        """The outputs of each network for samples of a view that is prepared.

        Args:
            index: (N,) int64, ids of samples of the split.
            view: which of their views; None: as they are.
            temperature: at which they will be softened; see `OutputCodec`.

        Returns:
            Outputs on the device of index, float32.
        """
        self._position = self._position.to(index.device)
        positions = self._position.index_select(0, index)
        slot = view or 0
        if self.bytes_per_view <= _RESIDENT:
            if self._loaded is None or self._loaded[0] != slot:
                self._loaded = slot, self._load(slot, index.device)
            fields = {name: field.index_select(0, positions) for name, field in self._loaded[1].items()}
        else:
            fields = _fields(self._mapped(slot)[positions.cpu().numpy()], index.device)
            self._let_go(len(index))
        return self.record.decode(fields, temperature)

    def _load(self, slot: int, device: torch.device) -> dict[str, Tensor]:
        content = os.pread(self._outputs, self.bytes_per_view, self._offset(slot, 0))
        return _fields(np.frombuffer(content, self.record.dtype), device)

    def _mapped(self, slot: int) -> NDArray[np.void]:
        end = self._offset(slot + 1, 0)
        if self._map is None or len(self._map) < end:
            self._map = mmap.mmap(self._outputs, 0, prot=mmap.PROT_READ)
        return np.frombuffer(self._map, self.record.dtype, self.samples, self._offset(slot, 0))

    def _let_go(self, samples: int) -> None:
        """Give the mapped pages back to the system's page cache now and then, where they cost nothing to find again."""
        self._touched += samples * (self.record.dtype.itemsize + _AROUND)
        if self._touched > _MAPPED and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def filled_views(self) -> list[int]:
        """The views that are there."""
        return filled_views(self.folder, self.samples)

    def damaged(self) -> int:
        """How many shards have a digest that does not fit."""
        slots = os.fstat(self._checksums).st_size // (self._shards * DIGEST)
        found = 0
        for slot in range(slots):
            for shard in range(self._shards):
                place = (slot * self._shards + shard) * DIGEST
                filled = any(os.pread(self._checksums, DIGEST, place))
                found += filled and not self._is_whole(slot, shard)
        return found

    def largest_difference(self, sample: Sequence[int], *, augmented: bool) -> float:
        """Ask the teacher again for samples of all views that are there, one at a time.

        Args:
            sample: positions in the split; each is computed in one of the views.
            augmented: whether the views are augmented ones, or the samples as they are.

        Returns:
            The largest difference of a number (logits and features) from the kept one.
        """
        views, largest = self.filled_views(), 0.0
        for turn, position in enumerate(sample if views else ()):
            slot = views[turn % len(views)]
            (fresh,) = self._compute(slot if augmented else None, range(position, position + 1))
            content = os.pread(self._outputs, int(self.record.dtype.itemsize), self._offset(slot, position))
            kept, wanted = np.frombuffer(content, self.record.dtype), self.record.encode(fresh)
            for name in self.record.dtype.names or ():
                difference = np.abs(kept[name].astype(np.float64) - wanted[name].astype(np.float64))
                largest = max(largest, float(difference.max()))
        return largest


def _open(owner: object, path: Path) -> int:
    """A file to read and, unless it is in a store of somebody else's, to write.

    It is closed when its owner is gone, and stays usable when somebody removes the folder.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        with writing_to_store(path.parent):
            descriptor = os.open(path, os.O_RDONLY)
    weakref.finalize(owner, os.close, descriptor)
    return descriptor


def _fields(records: NDArray[np.void], device: torch.device) -> dict[str, Tensor]:
    # Copied: the fields of records lie apart, and what was read from a file must not be written to.
    return {name: torch.from_numpy(records[name].copy()).to(device) for name in records.dtype.names or ()}


class TeacherOutputCache:
    """The cached outputs of a teacher for an experiment's data.

    Args:
        teacher: computes what is not there.
        data: the student's data.
        kept: for each split the folder, the metadata and the codec of its `CachedOutputs`.
        views: how many views of the training samples there are to be.

    Attributes:
        device: where the teacher is run.
        splits: the outputs of each split.
    """

    def __init__(
        self,
        teacher: Teacher,
        data: DataModule,
        kept: Mapping[SplitName, tuple[Path, Mapping[str, object], OutputCodec]],
        views: int,
    ) -> None:
        self.device = torch.device("cpu")
        self._teacher, self._data, self._views = teacher, data, views
        self.splits = {
            split: CachedOutputs(*each, getattr(data.splits, split).index, partial(self._compute, split))
            for split, each in kept.items()
        }

    def _compute(self, split: SplitName, view: int | None, positions: range) -> Iterator[Sequence[Outputs]]:
        self._teacher.to(self.device)
        for batch in self._data.eval_batches(split, self.device, view, torch.arange(positions.start, positions.stop)):
            yield self._teacher.member_outputs_of(split, batch)

    def prepare(self, split: SplitName, epoch: int = 0) -> None:
        """Compute what is missing of an epoch's outputs, or of another split's; every rank calls it."""
        self.splits[split].prepare(self._view(split, epoch))

    def fill(self) -> None:
        """Ask for all that is to be kept."""
        for split, outputs in self.splits.items():
            for epoch in range(self._views if split == "train" else 1):
                self.prepare(split, epoch)
                log.info("%s: view %d of %d samples is there", split, epoch, len(getattr(self._data.splits, split)))
            log.info("%s: %.3g MB in %s", split, used(outputs.folder) / 1e6, outputs.folder)

    def __call__(self, split: SplitName, index: Tensor, temperature: float, epoch: int = 0) -> Outputs:
        """The teacher's outputs, as `Teacher.__call__` would give them for these samples in this epoch.

        Args:
            split: where the samples are from; prepared.
            index: (N,) int64, their ids.
            temperature: at which the caller softens the logits.
            epoch: of training.
        """
        return self._teacher.combine(self.splits[split](index, self._view(split, epoch), temperature), temperature)

    def sample(self, split: SplitName, count: int, seed: int) -> list[int]:
        """Positions of so many samples of a split; see `stratified_sample`."""
        positions: list[int] = stratified_sample(getattr(self._data.splits, split).target, count, seed).tolist()
        return positions

    def augmented(self, split: SplitName) -> bool:
        """Whether the outputs for a split are for augmented views."""
        return self._view(split, 0) is not None

    def _view(self, split: SplitName, epoch: int) -> int | None:
        return self._data.view(epoch) if split == "train" else None


class TeacherMemory:
    """What the teacher gave for the batches of a split in their fixed order, computed once.

    Attributes:
        on_val: see `kdexp.training.distiller.Distiller`.
    """

    def __init__(self) -> None:
        self.on_val: list[Outputs] = []
        self._outputs: dict[SplitName, list[Outputs]] = {}

    def outputs(
        self, split: SplitName, batches: Iterable[Batch], teacher: Teacher, cache: TeacherOutputCache | None
    ) -> list[Outputs]:
        """The teacher's outputs (at T = 1), a batch each.

        Args:
            split: of the data.
            batches: of the split, in its fixed order; read the first time alone.
            teacher: asked the first time, where nothing is cached.
            cache: of its outputs.
        """
        if split not in self._outputs:
            self._outputs[split] = _outputs(split, batches, teacher, cache)
        return self._outputs[split]


def _outputs(
    split: SplitName, batches: Iterable[Batch], teacher: Teacher, cache: TeacherOutputCache | None
) -> list[Outputs]:
    if cache is None:
        return [teacher(batch.inputs) for batch in paced(batches, f"teacher: logits of {split}")]
    cache.prepare(split)
    return [cache(split, batch.index, 1.0) for batch in batches]
