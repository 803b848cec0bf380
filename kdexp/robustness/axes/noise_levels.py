"""The measure over the amount of noise: the mean over it, and the level that halves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.require import require_numbers
from kdexp.robustness.axes.base import Axis, TestBed, applicable, check_kinds, operator_path

if TYPE_CHECKING:
    from torch import Tensor

    from kdexp.contracts import Batch
    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.corruption import LevelCurve
    from kdexp.robustness.grid import Condition, Found, Grid


@dataclass(frozen=True)
class NoiseLevels(Axis):
    """Noises at rising levels.

    Attributes:
        kinds: name -> settings of a `kdexp.robustness.corruption.LevelCurve`.
    """

    kinds: Mapping[str, Mapping[str, object]]
    place: ClassVar[int] = 20

    def check(self) -> None:
        """See `Axis.check`."""
        check_kinds(self.setting, self.kinds)
        for name, kind in self.kinds.items():
            require_numbers(f"{self.setting}.kinds.{name}.levels", kind.get("levels"))

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """A condition for each noise and level."""
        kinds = applicable(self, self.kinds, grid, bed.notes)
        return [noisy(grid, self.name, name, curve, level) for name, curve in kinds.items() for level in curve.levels]

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """For each noise what the curve of the measure over its level says."""
        from kdexp.robustness.level_curves import summarize

        return {self.name: summarize(found, bootstrap)}

    def measure(self, found: Found, bootstrap: Bootstrap) -> dict[str, dict[str, Resampled]]:
        """The mean over noises and levels."""
        from kdexp.robustness.level_curves import mean_over_kinds

        return {self.name: mean_over_kinds(found, bootstrap)}


def noisy(grid: Grid, axis: str, name: str, curve: LevelCurve, level: float) -> Condition:
    """The test data with one level of a noise."""
    parameters = {curve.parameter: level}

    def perturb(batch: Batch) -> Tensor:
        return curve.operator(batch.inputs, batch.index, seed=grid.seed, **parameters)

    operator = operator_path(curve.operator)
    return grid.perturbed(axis, name, level, "noise", perturb, operator=operator, **parameters)
