"""Several jobs of a sweep in one process: one pass over the data and one of the teacher feed all their students.

A job is an ordinary run from its data to its results.json; nothing of it is written a second time for this. It has a
stack of its own (a greenlet), which is set aside wherever its training asks for its next batch. Of those that wait, the
least far get theirs: so all go in step, and one that begins or continues behind the others catches up with them.

What jobs share (`SharedParts`) is remembered until the next is asked for, and is a function of what it is remembered
by. So a job is given what it would make alone, to the bit, whoever the others are and however far they have come.
"""

import hashlib
import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from kdexp import assemble, memory
from kdexp.config import fingerprint, plain, teachers
from kdexp.contracts import Batch, Outputs
from kdexp.data.loading import DataModule, Epochs
from kdexp.distiller import Distiller
from kdexp.experiment import Parts
from kdexp.fit import ignore_known_warnings
from kdexp.teacher import Teacher
from kdexp.teacher_cache import Cache, SplitName
from kdexp.vectorised import Backend

log = logging.getLogger(__name__)

Place = tuple[int, int]
"""How far a training is: its epoch and the number of the batch that it wants next, both from 0."""

_SHARE = 0.7
"""Of the free memory, that students may take: evaluation and figures at the end want some, too."""


def run_together(
    jobs: Sequence[Callable[[Parts], None]], backend: str = "loop", max_students: int | None = None
) -> None:
    """Run jobs to their end.

    Args:
        jobs: each is given the parts that it shares with the others. What one raises ends them all, where they wait: an
            exception that is a job's own business must not leave it.
        backend: how they take their steps; see `kdexp.vectorised.BACKENDS`.
        max_students: so many jobs at once, the others after them; None: as many as there is memory for.
    """
    turns = Turns(Backend(backend), max_students)
    parts = SharedParts(turns)
    with warnings.catch_warnings():
        ignore_known_warnings()  # each job does, but what one puts back at its end are the filters of all
        turns.run([partial(job, parts) for job in jobs])


class Turns:
    """Lets jobs run in turn in this thread.

    Args:
        backend: how they take their steps.
        most: how many jobs at once; None: as many as there is memory for.

    Attributes:
        backend: the same.
        together: how many jobs were begun together with those that run now.
    """

    def __init__(self, backend: Backend, most: int | None) -> None:
        self.backend, self._most = backend, most
        self._hub = getcurrent()
        self._waiting: dict[greenlet, _Batches] = {}
        self.together = 0

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """See `run_together`."""
        left = deque(jobs)
        try:
            while left:
                self._begin(left)
                while self._waiting:
                    self._round()
        except BaseException as error:
            for fiber in list(self._waiting):
                _end(fiber, error)
            raise

    def _begin(self, left: deque[Callable[[], None]]) -> None:
        """Begin as many jobs as there is room for."""
        most, self.together = self._most or len(left), 0
        while left and len(self._waiting) < most:
            fiber = greenlet(left.popleft())
            self._go_on(fiber)
            if fiber.dead:
                continue
            self.together += 1
            if self.together == 1 and self._most is None:
                most = self._room(fiber, len(left) + 1)

    def _room(self, fiber: greenlet, wanted: int) -> int:
        """How many students fit at once, by what the first one's first step takes."""
        device = self._waiting[fiber].device
        taken = memory.peak_of(partial(self._go_on, fiber), device)
        free = memory.free(device)
        if taken is None or free is None:
            return wanted
        room = 1 + int(_SHARE * free / max(taken, 1))
        log.info("fused: the first student's step takes %.0f MB, %.1f GB are free: %d of %d at once", taken / 1e6,
                 free / 1e9, min(room, wanted), wanted)  # fmt: skip
        return room

    def _round(self) -> None:
        """Let those that are least far take a step."""
        least = min(batches.place for batches in self._waiting.values())
        waiting = {fiber: batches for fiber, batches in self._waiting.items() if batches.place == least}
        modules = {fiber: batches.module for fiber, batches in waiting.items()}
        with self.backend.round(list(modules.values()), [batches.next() for batches in waiting.values()]):
            for fiber, module in modules.items():
                with self.backend.turn(module):
                    self._go_on(fiber)
                if fiber not in self._waiting or self._waiting[fiber].place != (least[0], least[1] + 1):
                    self.backend.join(module)

    def _go_on(self, fiber: greenlet) -> None:
        self._waiting.pop(fiber, None)
        batches = fiber.switch()
        if not fiber.dead:
            self._waiting[fiber] = batches

    def wait(self, batches: "_Batches") -> None:
        """Called by a job that wants its next batch: let others run, until it is this one's turn again."""
        # What is drawn at random, dropout above all, is drawn as if nobody else were here.
        with torch.random.fork_rng([batches.device] if batches.device.type == "cuda" else []):
            self._hub.switch(batches)


def _end(fiber: greenlet, error: BaseException) -> None:
    try:
        fiber.throw(type(error), *error.args)
    except BaseException as raised:
        if type(raised) is not type(error):
            raise


class SharedParts(Parts):
    """What jobs have in common that see the same data set and ask the same teacher.

    The loaded data, the teacher and its kept answers are shared by all of them; so are its answers on val and test.
    Training batches, and its answers to them when they are not kept, are shared by those with the same order and
    augmentation, which are functions of the seed.

    Args:
        turns: of the jobs.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._data: dict[str, assemble.Data] = {}
        self._streams: dict[DataModule, _Stream] = {}
        self._teacher: Teacher | None = None
        self._caches: dict[bytes, Cache | None] = {}
        self._on_val: list[Outputs] = []
        self._answers: dict[SplitName, list[Outputs]] = {}

    def data(self, config: Any) -> assemble.Data:
        """See `Parts`."""
        order = fingerprint([config.seed, config.dataset.subset_seed, plain(config.augment)])
        if order not in self._data:
            self._data[order] = assemble.Data(config, like=next(iter(self._data.values()), None))
        return self._data[order]

    def teacher(self, config: Any, data: assemble.Data) -> Teacher | None:
        """See `Parts`."""
        if self._teacher is None:
            self._teacher = assemble.teacher(config, data, kind=partial(_SharedTeacher, self._streams))
        return self._teacher if teachers(config) else None  # a control has none

    def cache(self, config: Any, frozen: Teacher | None, data: assemble.Data) -> Cache | None:
        """See `Parts`."""
        if frozen is None:
            return None
        samples = hashlib.sha256(data.student.splits.train.index.numpy().tobytes()).digest()
        if samples not in self._caches:
            self._caches[samples] = assemble.teacher_cache(config, frozen, data)
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

    def batches(self, data: assemble.Data) -> pl.LightningDataModule:
        """See `Parts`."""
        return _Fed(data.student, self._turns, self._streams)


class _SharedTeacher(Teacher):
    """Is asked once about a training batch, however many students it feeds."""

    def __init__(self, streams: "Mapping[DataModule, _Stream]", *args: Any, **more: Any) -> None:
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

    def __init__(self, data: DataModule, turns: Turns, streams: "dict[DataModule, _Stream]") -> None:
        super().__init__()
        self._data, self._turns, self._streams = data, turns, streams

    def train_dataloader(self) -> "_Batches":
        assert self.trainer is not None
        if self._data not in self._streams:
            self._streams[self._data] = _Stream(self._data.epochs(self.trainer.strategy.root_device))
        return _Batches(self.trainer, self._turns, self._streams[self._data])

    def val_dataloader(self) -> Any:
        assert self.trainer is not None
        order = self._data.val_order(self.trainer)
        return self._data.eval_batches("val", self.trainer.strategy.root_device, positions=order)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch  # it is there, and is to stay the one that the others have


class _Batches:
    """One job's training batches.

    Attributes:
        place: of the batch that the job waits for.
    """

    def __init__(self, trainer: pl.Trainer, turns: Turns, stream: "_Stream") -> None:
        self._trainer, self._turns, self._stream = trainer, turns, stream
        self.place: Place = 0, 0

    @property
    def module(self) -> Distiller:
        """What is trained."""
        module = self._trainer.lightning_module
        assert isinstance(module, Distiller)
        return module

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self._trainer.strategy.root_device

    def next(self) -> Batch:
        """The batch that the job waits for."""
        return self._stream.batch(self.place)

    def __len__(self) -> int:
        return len(self._stream.epochs)

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self)):
            self.place = self._trainer.current_epoch, number
            self._turns.wait(self)
            yield self.next()


class _Stream:
    """The training batches in one order; that of the latest place is remembered.

    Attributes:
        answers: the teacher's to that batch; None: it was not asked.
    """

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs
        self.answers: list[Outputs] | None = None
        self._place: Place | None = None

    def batch(self, place: Place) -> Batch:
        epoch, number = place
        if place != self._place:
            if self._place != (epoch, number - 1):  # an epoch begins, or who came furthest is no more
                self._rest = islice(self.epochs(epoch), number, None)
            self._latest, self._place, self.answers = next(self._rest), place, None
        return self._latest

    def is_at(self, inputs: Tensor) -> bool:
        """Whether these are the inputs of the latest batch."""
        return self._place is not None and self._latest.inputs is inputs
