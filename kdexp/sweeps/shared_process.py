"""Several jobs in one process, taking turns."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import pytorch_lightning as pl
import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from kdexp.contracts import Batch, Outputs
from kdexp.data.loaders import Epochs
from kdexp.sweeps import memory
from kdexp.sweeps.step_backends import Backend
from kdexp.training.distiller import Distiller

log = logging.getLogger(__name__)

Place = tuple[int, int]
"""How far a training is: its epoch and the number of the batch that it wants next, both from 0."""
_SHARE = 0.7
"""Of the free memory, that students may take: evaluation and figures at the end want some, too."""


class RoundRobin:
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
        self._waiting: dict[greenlet, SharedBatches] = {}
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
        log.info(
            "fused: the first student's step takes %.0f MB, %.1f GB are free: %d of %d at once",
            taken / 1e6,
            free / 1e9,
            min(room, wanted),
            wanted,
        )
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

    def wait(self, batches: "SharedBatches") -> None:
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


class SharedBatches:
    """One job's training batches.

    Attributes:
        place: of the batch that the job waits for.
    """

    def __init__(self, trainer: pl.Trainer, turns: RoundRobin, stream: "BatchFeed") -> None:
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


class BatchFeed:
    """The training batches in one order; that of the latest place is remembered.

    Attributes:
        outputs: the teacher's for that batch; None: it has not been run on it.
    """

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs
        self.outputs: list[Outputs] | None = None
        self._place: Place | None = None

    def batch(self, place: Place) -> Batch:
        """The batch at a place in the training."""
        epoch, number = place
        if place != self._place:
            if self._place != (epoch, number - 1):  # an epoch begins, or who came furthest is no more
                self._rest = islice(self.epochs(epoch), number, None)
            self._latest, self._place, self.outputs = next(self._rest), place, None
        return self._latest

    def is_at(self, inputs: Tensor) -> bool:
        """Whether these are the inputs of the latest batch."""
        return self._place is not None and self._latest.inputs is inputs
