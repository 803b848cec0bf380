"""Common corruptions: kdexp's own, computed as they are needed, and the published sets that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.require import require
from kdexp.robustness.axes.base import Axis, TestBed, applicable, check_kinds, operator_path
from kdexp.robustness.settings import CONTROL

if TYPE_CHECKING:
    from torch import Tensor

    from kdexp.contracts import Batch
    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.corruption import Corruption
    from kdexp.robustness.corruption_datasets import PublishedSet
    from kdexp.robustness.grid import Condition, Found, Grid

COMPUTED = "corruptions_lite"
"""`Condition.axis` of the corruptions that are computed here; published sets have their own names."""


def is_of_corruptions(axis: str) -> bool:
    """Whether a `Condition.axis` is of common corruptions: computed here, or a published set of them."""
    return axis == COMPUTED or axis.endswith(("_c", "_c_held_out"))


@dataclass(frozen=True)
class Corruptions(Axis):
    """Corruptions at up to five severities.

    Attributes:
        kinds: name -> settings of a `kdexp.robustness.corruption.Corruption`.
        severities: of 1 to 5; published sets have all that they have.
        published: whether CIFAR-10-C, CIFAR-100-C or MNIST-C are read when their folder is in data_dir.
    """

    kinds: Mapping[str, Mapping[str, object]]
    severities: Sequence[int]
    published: bool
    place: ClassVar[int] = 10

    def check(self) -> None:
        """See `Axis.check`."""
        setting = f"{self.setting}.severities"
        require(isinstance(self.severities, list), setting, "must be a list", self.severities)
        for severity in self.severities:
            require(severity in (1, 2, 3, 4, 5), setting, "must be of 1 to 5", severity)
        check_kinds(self.setting, self.kinds)

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """A condition for each kind and severity."""
        from kdexp.robustness.corruption_datasets import published_sets

        kinds = applicable(self, self.kinds, grid, bed.notes)
        conditions = [
            corrupted(grid, name, kind, severity) for name, kind in kinds.items() for severity in self.severities
        ]
        for found in published_sets(bed.own.name, bed.data_dir) if self.published else ():
            found.check(bed.own.test_target, grid.shape)
            conditions += [
                _published(grid, found, name, severity) for name in found.families for severity in found.severities
            ]
        return conditions

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """For each set of corruptions the mean corruption errors, the error by family, and the worst condition."""
        return {axis: _errors(conditions, bootstrap) for axis, conditions in _by_set(found).items()}

    def measure(self, found: Found, bootstrap: Bootstrap) -> dict[str, dict[str, Resampled]]:
        """For each set of corruptions the mean over its kinds and severities."""
        from kdexp.robustness.corruption_error import mce_unnormalized

        measures = {}
        for axis, conditions in _by_set(found).items():
            names = [condition.name for condition, _ in conditions]
            values = bootstrap.by_role([measured for _, measured in conditions])
            measures[axis] = {role: 1 - mce_unnormalized(1 - own, names) for role, own in values.items()}
        return measures


def corrupted(grid: Grid, name: str, corruption: Corruption, severity: int) -> Condition:
    """The test data with a corruption that is computed here; masks are moved with their images.

    Raises:
        ValueError: severity is not 1 to 5.
    """
    settings = {"operator": operator_path(corruption.operator), **corruption.parameters(severity, grid.shape)}

    def perturb(batch: Batch) -> Batch:
        corrupt = partial(corruption, index=batch.index, severity=severity, seed=grid.seed)
        masks = corrupt(batch.target.unsqueeze(1)).squeeze(1) if grid.is_dense and corruption.moves else batch.target
        return replace(batch, inputs=corrupt(batch.inputs), target=masks)

    return grid.perturbed(COMPUTED, name, severity, corruption.family, perturb, **settings)


def _published(grid: Grid, published: PublishedSet, name: str, severity: int) -> Condition:
    """One corruption of a published set of test images."""

    def perturb(batch: Batch) -> Tensor:
        return published.images(name, severity, batch.index)

    return grid.perturbed(published.name, name, severity, published.families[name], perturb)


def _by_set(found: Found) -> dict[str, Found]:
    axes = dict.fromkeys(condition.axis for condition, _ in found)
    return {axis: [(condition, measured) for condition, measured in found if condition.axis == axis] for axis in axes}


def _errors(found: Found, bootstrap: Bootstrap) -> dict[str, object]:
    from kdexp.robustness.corruption_error import mce_relative_to, mce_unnormalized, relative_mce

    names = [condition.name for condition, _ in found]
    values = bootstrap.by_role([measured for _, measured in found])
    wrong = {role: 1 - own for role, own in values.items()}
    said: dict[str, object] = {
        "mce_unnormalized": bootstrap.entry({role: mce_unnormalized(own, names) for role, own in wrong.items()})
    }
    if CONTROL in wrong:
        alone, clean = wrong[CONTROL], {role: 1 - own for role, own in bootstrap.clean().items()}
        said["mce_vs_control"] = bootstrap.entry(
            {role: mce_relative_to(own, alone, names) for role, own in wrong.items()}
        )
        said["relative_mce"] = bootstrap.entry(
            {role: relative_mce(own, clean[role], alone, clean[CONTROL], names) for role, own in wrong.items()}
        )
    for family in dict.fromkeys(condition.family for condition, _ in found):
        part = [place for place, (condition, _) in enumerate(found) if condition.family == family]
        of_part = [names[place] for place in part]
        said[f"error_{family}"] = bootstrap.entry(
            {role: mce_unnormalized(own[:, part], of_part) for role, own in wrong.items()}
        )
    worst = {f"worst_condition_{role}": found[int(own[0].argmin())][0] for role, own in values.items()}
    lowest = bootstrap.entry({role: own.min(1) for role, own in values.items()})
    where = {name: f"{condition.name} {condition.level:g}" for name, condition in worst.items()}
    said[f"worst_condition_{bootstrap.measure}"] = lowest | where
    return said
