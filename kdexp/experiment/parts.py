"""The parts of a run that jobs in one process may share."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from kdexp.contracts import Outputs
from kdexp.experiment import teacher_outputs
from kdexp.experiment.data import Data
from kdexp.experiment.teachers import build_teacher
from kdexp.teacher.cached_outputs import SplitName, TeacherOutputCache
from kdexp.teacher.teacher import Teacher


class Parts:
    """What a run needs that it might have in common with others in its process (`kdexp.sweeps`); here, its own."""

    def data(self, config: Any) -> Data:
        """The data set, loaded."""
        return Data(config)

    def teacher(self, config: Any, data: Data) -> Teacher | None:
        """The teacher, trained; None for a control."""
        return build_teacher(config, data)

    def cache(self, config: Any, frozen: Teacher | None, data: Data) -> TeacherOutputCache | None:
        """The teacher's kept answers, where they are to be kept."""
        return teacher_outputs.teacher_cache(config, frozen, data)

    def on_val(self) -> list[Outputs]:
        """See `Distiller.teacher_on_val`."""
        return []

    def answers(self, split: SplitName, ask: Callable[[], list[Outputs]]) -> list[Outputs]:
        """The teacher's answers (at T = 1) to the batches of a split in their fixed order, of which it is asked."""
        return ask()

    def cost(self) -> dict[str, Any]:
        """What there is to say of the run's cost."""
        return {}

    def batches(self, data: Data) -> pl.LightningDataModule:
        """What the Trainer is given."""
        return data.student
