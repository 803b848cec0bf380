"""The teacher's outputs of val and test, which are the same for every student."""

from collections.abc import Callable

from kdexp.contracts import Outputs
from kdexp.teacher.cached_outputs import SplitName


class TeacherMemory:
    """What the teacher gave for the batches of a split in their fixed order, computed once.

    Attributes:
        on_val: see `kdexp.training.distiller.Distiller`.
    """

    def __init__(self) -> None:
        self.on_val: list[Outputs] = []
        self._outputs: dict[SplitName, list[Outputs]] = {}

    def outputs(self, split: SplitName, compute: Callable[[], list[Outputs]]) -> list[Outputs]:
        """The teacher's outputs (at T = 1), a batch each.

        Args:
            split: of the data.
            compute: gives them the first time.
        """
        if split not in self._outputs:
            self._outputs[split] = compute()
        return self._outputs[split]
