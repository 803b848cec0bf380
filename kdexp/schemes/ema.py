"""Distillation from the student's own moving average."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdexp.config.require import is_number, require
from kdexp.contracts import Batch, Outputs
from kdexp.data.settings import Dataset
from kdexp.schemes.base import Scheme, SchemeContext
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller, OptimizerFactory


@dataclass(frozen=True, kw_only=True)
class EMA(Scheme):
    """The student learns from the moving average of its own weights: see `EMADistiller`.

    Attributes:
        decay: of the average, per step, in [0, 1).
    """

    decay: float

    needs: ClassVar[str] = "own"

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the decay."""
        super().check(setting, dataset)
        holds = is_number(self.decay) and 0 <= self.decay < 1
        require(holds, f"{setting}.decay", "must be in [0, 1)", self.decay)

    def distiller(self, context: SchemeContext) -> Callable[..., Distiller]:
        """See `EMADistiller`."""
        return partial(EMADistiller, decay=self.decay)


class EMADistiller(Distiller):
    """The teacher is the exponential moving average of the student's own weights.

    Mean Teacher of Tarvainen and Valpola 2017 (arXiv 1703.01780), whose consistency term here is the chosen soft loss.
    After step s the average moves by ``1 - min(1 - 1 / (s + 1), decay)`` towards the student, as in the authors' code,
    so that it is not made of initial weights for long. It is run in eval mode; batch norm's statistics are averaged
    like weights. The checkpoints have it, so that a resumed run does; the exported student does not.

    Args:
        student: see `Distiller`; `Distiller` takes all other arguments but teacher and feature_losses.
        decay: of the average, in [0, 1).
        settings: see `Distiller`.
    """

    def __init__(self, student: nn.Module, optimizer: OptimizerFactory, *, decay: float, **settings: Any) -> None:
        def move(
            averages: list[Tensor] | tuple[Tensor, ...],
            current: list[Tensor] | tuple[Tensor, ...],
            updates: Tensor | int,
        ) -> None:
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, current, 1 - min(1 - 1 / (int(updates) + 1), decay))
            else:  # batch norm's count of batches
                torch._foreach_copy_(averages, current)

        average = AveragedModel(student, multi_avg_fn=move, use_buffers=True)
        super().__init__(student, optimizer, teacher=Teacher([average]), **settings)
        self._averaged = [average]  # in a list: not a module of this one, like any teacher

    @property
    def average(self) -> AveragedModel:
        """The averaged network; its ``module`` is of the student's architecture."""
        return self._averaged[0]

    def validation_teacher_outputs(self, batch: Batch, batch_idx: int, temperature: float) -> Outputs | None:
        """The average's outputs, by a forward pass."""
        return self.teacher_outputs(batch.inputs)  # it moves: nothing is remembered

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Move the average."""
        self.average.update_parameters(self.student)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Save the average with the student."""
        checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the average as it was."""
        self.average.load_state_dict(checkpoint["average"])
