"""What jobs in one process share: data, teacher, cached outputs."""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint
from kdexp.contracts import Batch, Outputs
from kdexp.data.loading import DataModule
from kdexp.experiment import teacher_outputs
from kdexp.experiment.data import Data
from kdexp.experiment.members import teachers
from kdexp.experiment.parts import Parts
from kdexp.experiment.teachers import build_teacher
from kdexp.sweeps.shared_process import BatchStream, RoundRobin, SharedBatches
from kdexp.sweeps.step_backends import Backend
from kdexp.teacher.cached_outputs import SplitName, TeacherOutputCache
from kdexp.teacher.teacher import Teacher
from kdexp.training.fit import ignore_known_warnings


def run_together(
    jobs: Sequence[Callable[[Parts], None]], backend: str = "loop", max_students: int | None = None
) -> None:
    """Run jobs to their end.

    Args:
        jobs: each is given the parts that it shares with the others. What one raises ends them all, where they wait: an
            exception that is a job's own business must not leave it.
        backend: how they take their steps; see `kdexp.sweeps.step_backends.BACKENDS`.
        max_students: so many jobs at once, the others after them; None: as many as there is memory for.
    """
    turns = RoundRobin(Backend(backend), max_students)
    parts = SharedParts(turns)
    with warnings.catch_warnings():
        ignore_known_warnings()  # each job does, but what one puts back at its end are the filters of all
        turns.run([partial(job, parts) for job in jobs])


class SharedParts(Parts):
    """What jobs have in common that see the same data set and ask the same teacher.

    The loaded data, the teacher and its kept answers are shared by all of them; so are its answers on val and test.
    Training batches, and its answers to them when they are not kept, are shared by those with the same order and
    augmentation, which are functions of the seed.

    Args:
        turns: of the jobs.
    """

    def __init__(self, turns: RoundRobin) -> None:
        self._turns = turns
        self._data: dict[str, Data] = {}
        self._streams: dict[DataModule, BatchStream] = {}
        self._teacher: Teacher | None = None
        self._caches: dict[bytes, TeacherOutputCache | None] = {}
        self._on_val: list[Outputs] = []
        self._answers: dict[SplitName, list[Outputs]] = {}

    def data(self, config: Any) -> Data:
        """See `Parts`."""
        order = fingerprint([config.seed, config.dataset.subset_seed, plain(config.augment)])
        if order not in self._data:
            self._data[order] = Data(config, like=next(iter(self._data.values()), None))
        return self._data[order]

    def teacher(self, config: Any, data: Data) -> Teacher | None:
        """See `Parts`."""
        if self._teacher is None:
            self._teacher = build_teacher(config, data, kind=partial(_SharedTeacher, self._streams))
        return self._teacher if teachers(config) else None  # a control has none

    def cache(self, config: Any, frozen: Teacher | None, data: Data) -> TeacherOutputCache | None:
        """See `Parts`."""
        if frozen is None:
            return None
        samples = hashlib.sha256(data.student.splits.train.index.numpy().tobytes()).digest()
        if samples not in self._caches:
            self._caches[samples] = teacher_outputs.teacher_cache(config, frozen, data)
        return self._caches[samples]

    def answers(self, split: SplitName, ask: Callable[[], list[Outputs]]) -> list[Outputs]:
        """See `Parts`."""
        if split not in self._answers:
            self._answers[split] = ask()
        return self._answers[split]

    def on_val(self) -> list[Outputs]:
        """See `Parts`."""
        return self._on_val

    def cost(self) -> dict[str, Any]:
        """See `Parts`."""
        return {"fused": {"students": self._turns.together, "backend": self._turns.backend.chosen or "loop"}}

    def batches(self, data: Data) -> pl.LightningDataModule:
        """See `Parts`."""
        return _Fed(data.student, self._turns, self._streams)


class _SharedTeacher(Teacher):
    """Is asked once about a training batch, however many students it feeds."""

    def __init__(self, streams: "Mapping[DataModule, BatchStream]", *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._streams = streams

    def answers(self, inputs: Tensor) -> list[Outputs]:
        for stream in self._streams.values():
            if stream.is_at(inputs):
                if stream.answers is None:
                    stream.answers = super().answers(inputs)
                return stream.answers
        return super().answers(inputs)


class _Fed(pl.LightningDataModule):
    """The data of one job: the training batches are those that the others are given, too."""

    def __init__(self, data: DataModule, turns: RoundRobin, streams: "dict[DataModule, BatchStream]") -> None:
        super().__init__()
        self._data, self._turns, self._streams = data, turns, streams

    def train_dataloader(self) -> "SharedBatches":
        assert self.trainer is not None
        if self._data not in self._streams:
            self._streams[self._data] = BatchStream(self._data.epochs(self.trainer.strategy.root_device))
        return SharedBatches(self.trainer, self._turns, self._streams[self._data])

    def val_dataloader(self) -> Any:
        assert self.trainer is not None
        order = self._data.val_order(self.trainer)
        return self._data.eval_batches("val", self.trainer.strategy.root_device, positions=order)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it is there, and is to stay the one that the others have
