"""Jobs in one process that share data, teacher and cached outputs."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint
from kdexp.contracts import Batch, Outputs
from kdexp.data.data_module import DataModule
from kdexp.experiment.data import Data
from kdexp.experiment.experiment import Experiment
from kdexp.sweeps.shared_process import BatchFeed, RoundRobin, SharedBatches
from kdexp.sweeps.step_backends import Backend
from kdexp.teacher.cached_outputs import TeacherMemory, TeacherOutputCache
from kdexp.teacher.teacher import Teacher
from kdexp.training.fit import ignore_known_warnings

Make = Callable[[DictConfig], Experiment]
"""What makes an experiment of a configuration."""


def run_together(
    jobs: Sequence[Callable[[Make], None]], backend: str = "loop", max_students: int | None = None
) -> None:
    """Run jobs to their end.

    Args:
        jobs: each is given what makes an experiment that shares its parts with the others. What one raises ends them
            all, where they wait: an exception that is a job's own business must not leave it.
        backend: how they take their steps; see `kdexp.sweeps.step_backends.BACKENDS`.
        max_students: so many jobs at once, the others after them; None: as many as there is memory for.
    """
    turns = RoundRobin(Backend(backend), max_students)
    make = partial(SharedExperiment, shared=Shared(turns))
    with warnings.catch_warnings():
        ignore_known_warnings()  # each job does, but what one puts back at its end are the filters of all
        turns.run([partial(job, make) for job in jobs])


@dataclass
class Shared:
    """What the jobs of one process have in common: they see the same data set and have the same teacher.

    The loaded data, the teacher and its cached outputs are shared by all of them; so are its outputs of val and test.
    Training batches, and its outputs for them when they are not cached, are shared by those with the same order and
    augmentation, which are functions of the seed.

    Attributes:
        turns: of the jobs.
        data: by the digest of order and augmentation.
        streams: of training batches.
        teacher: made by the first job that has one.
        caches: by the digest of the training samples.
        memory: the teacher's outputs of val and test.
    """

    turns: RoundRobin
    data: dict[str, Data] = field(default_factory=dict)
    streams: dict[DataModule, BatchFeed] = field(default_factory=dict)
    teacher: Teacher | None = None
    caches: dict[bytes, TeacherOutputCache | None] = field(default_factory=dict)
    memory: TeacherMemory = field(default_factory=TeacherMemory)


class SharedExperiment(Experiment):
    """An experiment that shares parts with others of its process.

    Args:
        config: see `Experiment`.
        shared: the parts.
    """

    def __init__(self, config: DictConfig, shared: Shared) -> None:
        super().__init__(config)
        self._shared = shared
        self.teacher_memory = shared.memory

    @cached_property
    def data(self) -> Data:
        """See `Experiment`."""
        config, known = self.config, self._shared.data
        order = fingerprint([config.seed, config.dataset.subset_seed, plain(config.augment)])
        if order not in known:
            known[order] = self.new_data(like=next(iter(known.values()), None))
        return known[order]

    @cached_property
    def teacher(self) -> Teacher | None:
        """See `Experiment`."""
        if self._shared.teacher is None:
            self._shared.teacher = self.new_teacher(partial(_SharedTeacher, self._shared.streams))
        return self._shared.teacher if self.members else None  # a control has none

    @cached_property
    def cache(self) -> TeacherOutputCache | None:
        """See `Experiment`."""
        if self.teacher is None:
            return None
        samples = hashlib.sha256(self.data.student.splits.train.index.numpy().tobytes()).digest()
        if samples not in self._shared.caches:
            self._shared.caches[samples] = self.new_cache()
        return self._shared.caches[samples]

    @cached_property
    def batches(self) -> pl.LightningDataModule:
        """See `Experiment`."""
        return _Fed(self.data.student, self._shared.turns, self._shared.streams)

    def cost(self) -> dict[str, object]:
        """See `Experiment`."""
        turns = self._shared.turns
        return {"fused": {"students": turns.together, "backend": turns.backend.chosen or "loop"}}


class _SharedTeacher(Teacher):
    """Runs once on a training batch, however many students it feeds."""

    def __init__(self, streams: "Mapping[DataModule, BatchFeed]", *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._streams = streams

    def member_outputs(self, inputs: Tensor) -> list[Outputs]:
        for stream in self._streams.values():
            if stream.is_at(inputs):
                if stream.outputs is None:
                    stream.outputs = super().member_outputs(inputs)
                return stream.outputs
        return super().member_outputs(inputs)


class _Fed(pl.LightningDataModule):
    """The data of one job: the training batches are those that the others are given, too."""

    def __init__(self, data: DataModule, turns: RoundRobin, streams: "dict[DataModule, BatchFeed]") -> None:
        super().__init__()
        self._data, self._turns, self._streams = data, turns, streams

    def train_dataloader(self) -> "SharedBatches":
        assert self.trainer is not None
        if self._data not in self._streams:
            self._streams[self._data] = BatchFeed(self._data.epochs(self.trainer.strategy.root_device))
        return SharedBatches(self.trainer, self._turns, self._streams[self._data])

    def val_dataloader(self) -> Iterable[Batch]:
        assert self.trainer is not None
        order = self._data.val_order(self.trainer)
        return self._data.eval_batches("val", self.trainer.strategy.root_device, positions=order)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it is there, and is to stay the one that the others have
