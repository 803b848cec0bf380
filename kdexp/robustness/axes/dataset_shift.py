"""Another data set of the same classes: how much of the measure is lost on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.require import require
from kdexp.robustness.axes.base import Dataset, OtherDataAxis, TestBed

if TYPE_CHECKING:
    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.grid import Condition, Found, Grid


@dataclass(frozen=True)
class DatasetShift(OtherDataAxis):
    """The test split of another data set with the same classes."""

    place: ClassVar[int] = 40

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """One condition."""
        other = bed.other(self)
        if other is None:
            return []
        self._check_classes(bed.own, other)
        return [grid.other(self.name, other.name, other.test.batches).on(other.test)]

    def _check_classes(self, own: Dataset, other: Dataset) -> None:
        same = {
            "kind": other.kind == own.kind,
            "num_classes": other.num_classes == own.num_classes,
            "classes": None in (own.classes, other.classes) or own.classes == other.classes,
        }
        for key, holds in same.items():
            require(holds, f"{self.setting}.dataset", f"must have the {key} of {own.name}", other.name)

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """The measure on the other data set, and how much less that is than on the run's own."""
        from kdexp.robustness.bootstrap import number

        clean, name, said = bootstrap.clean(), bootstrap.measure, {}
        for condition, measured in found:
            values = bootstrap.under(measured)
            lost = {role: number(clean[role][0] - own[0]) for role, own in values.items()}
            said[condition.name] = {name: bootstrap.entry(values), f"{name}_lost": lost}
        return {self.name: said}

    def measure(self, found: Found, bootstrap: Bootstrap) -> dict[str, dict[str, Resampled]]:
        """The measure on the other data set."""
        return {f"{self.name} {condition.name}": bootstrap.under(measured) for condition, measured in found}
