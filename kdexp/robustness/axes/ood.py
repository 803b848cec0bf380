"""Another data set with none of the classes, brought to the same shape: do the scores tell it from the test data?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.robustness.axes.base import OtherDataAxis, TestBed

if TYPE_CHECKING:
    from kdexp.robustness.attacks import Network
    from kdexp.robustness.bootstrap import Bootstrap
    from kdexp.robustness.grid import Batches, Condition, Found, Grid, Measured, Networks


@dataclass(frozen=True)
class OutOfDistribution(OtherDataAxis):
    """The test split of a data set whose classes are others."""

    place: ClassVar[int] = 50

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """One condition; none for masks: the scores are one a sample."""
        if grid.is_dense:
            bed.notes.append(f"{self.name} left out: it is for one class a sample, and targets are masks")
            return []
        other = bed.other(self)
        return [] if other is None else [detected(grid, self.name, other.name, other.test.batches).on(other.test)]

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """AUROC and FPR at 95 % TPR of each score."""
        return {self.name: {condition.name: _detection(measured, bootstrap) for condition, measured in found}}


def detected(grid: Grid, axis: str, name: str, foreign: Batches) -> Condition:
    """Foreign data, which the scores of `kdexp.robustness.ood_scores` are to tell from the test set."""
    from kdexp.robustness.grid import Condition

    def measure(networks: Networks) -> dict[str, Measured]:
        return {role: _scored(network, grid, foreign) for role, network in networks.all.items()}

    return Condition(axis, name, 1, measure, {})


def _scored(network: Network, grid: Grid, foreign: Batches) -> Measured:
    from kdexp.robustness.grid import Measured, logits_of
    from kdexp.robustness.ood_scores import detection, scores

    own, other = (scores(logits_of(network, batches)[0], grid.kind) for batches in (grid.batches, foreign))
    values = {f"{score}_{name}": value for score in own for name, value in detection(own[score], other[score]).items()}
    samples = {f"{score}_{side}": found[score] for side, found in (("own", own), ("other", other)) for score in own}
    return Measured(values, samples)


def _detection(measured: Mapping[str, Measured], bootstrap: Bootstrap) -> dict[str, object]:
    said: dict[str, object] = {}
    for name in next(iter(measured.values())).values:
        score, _, metric = name.rpartition("_")
        if metric == "auroc":
            samples = {role: measured[role].samples for role in bootstrap.roles}
            areas = {role: bootstrap.auroc(own[f"{score}_own"], own[f"{score}_other"]) for role, own in samples.items()}
            said[name] = bootstrap.entry(areas)
        else:
            said[name] = {role: measured[role].values[name] for role in bootstrap.roles}
    return said
