"""Other data sets with none of the classes, brought to the same shape: do the scores tell them from the test data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from kdexp.config.require import require
from kdexp.robustness.axes.base import Dataset, OtherDataAxis, TestBed

if TYPE_CHECKING:
    from kdexp.robustness.attacks import Network
    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.grid import Batches, Condition, Found, Grid, Measured, Networks

_LISTS = ("near", "far")


@dataclass(frozen=True)
class OutOfDistribution(OtherDataAxis):
    """The test splits of data sets whose classes are others.

    Attributes:
        dataset: see `OtherDataAxis`; one that is named is the only one.
        near: data sets that are like the run's own but for the classes; auto: those in lists whose files are there.
        far: those that are not like it.
        lists: data set -> near and far -> the data sets for it.
    """

    near: str | Sequence[str] = ()
    far: str | Sequence[str] = ()
    lists: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    place: ClassVar[int] = 50

    def check(self) -> None:
        """See `Axis.check`."""
        for key in _LISTS:
            found, setting = getattr(self, key), f"{self.setting}.{key}"
            are_names = isinstance(found, Sequence) and all(isinstance(name, str) for name in found)
            rule = "must be auto or a list of data sets"
            require(found == "auto" or (are_names and not isinstance(found, str)), setting, rule, found)
            is_left = found == "auto" or not found
            require(self.dataset == "auto" or is_left, setting, "must be auto where dataset names one", found)
        twice = sorted(set(self._named("near")) & set(self._named("far")))
        require(not twice, f"{self.setting}.far", "must have no data set of near", ", ".join(twice))

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """One for each data set; none for masks: the scores are one a sample."""
        if grid.is_dense:
            bed.notes.append(f"{self.name} left out: it is for one class a sample, and targets are masks")
            return []
        lists = {key: names for key in _LISTS if (names := self._list(key, bed.own.name))}
        if self.dataset != "auto" or not lists:
            one = bed.other(self)
            return [] if one is None else [_detected_on(grid, self.name, one, "")]
        for key in _LISTS:
            rule = "must be data sets of other classes than the run's own"
            require(bed.own.name not in self._named(key), f"{self.setting}.{key}", rule, bed.own.name)
        families = {name: key for key, listed in lists.items() for name in listed}
        pair = self.pairs.get(bed.own.name)
        wanted = dict.fromkeys([pair] if pair is not None else []) | dict.fromkeys(families)
        others = {name: other for name in wanted if (other := self._other(name, bed)) is not None}
        for key in lists:
            there = ", ".join(name for name in others if families.get(name) == key)
            bed.notes.append(f"{self.name} {key}: {there or 'no data set is there'}")
        return [_detected_on(grid, self.name, other, families.get(name, "")) for name, other in others.items()]

    def _named(self, key: str) -> Sequence[str]:
        """The data sets of a list that were given by name."""
        names: str | Sequence[str] = getattr(self, key)
        return () if names == "auto" else names

    def _list(self, key: str, own: str) -> Sequence[str]:
        """The data sets of a list; auto leaves out what was given by name for the other one."""
        if getattr(self, key) != "auto":
            return self._named(key)
        given = [name for other in _LISTS for name in self._named(other)]
        return [name for name in self.lists.get(own, {}).get(key, ()) if name not in given]

    def _other(self, name: str, bed: TestBed) -> Dataset | None:
        try:
            return bed.other(replace(self, dataset=name))
        except FileNotFoundError as error:
            if any(name in self._named(key) for key in _LISTS):
                raise
            bed.notes.append(f"{self.name} {name} left out: {error}")
            return None

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """Of each score what `kdexp.robustness.ood_scores.detection` has: means of the lists, and for each data set.

        A data set that is alone in its list is not there for itself.
        """
        scored = {condition.name: _detection(measured, bootstrap) for condition, measured in found}
        for key in _LISTS:
            listed = [condition.name for condition, _ in found if condition.family == key]
            if listed:
                scored[key] = _mean([scored[name] for name in listed])
            if len(listed) == 1:  # it has the values of the list
                del scored[listed[0]]
        return {
            self.name: {
                name: {metric: _entry(by_role, bootstrap) for metric, by_role in values.items()}
                for name, values in scored.items()
            }
        }


def _detected_on(grid: Grid, axis: str, other: Dataset, family: str) -> Condition:
    return replace(detected(grid, axis, other.name, other.test.batches), family=family).on(other.test)


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


_Detected: TypeAlias = "dict[str, dict[str, Resampled]]"
"""Score and metric -> role -> (1 + n_resamples,), or (1,) of what is not resampled."""


def _detection(measured: Mapping[str, Measured], bootstrap: Bootstrap) -> _Detected:
    """From the scores of the samples: what an older kdexp measured has fewer values."""
    import numpy as np

    from kdexp.robustness.ood_scores import detection

    said: _Detected = {}
    for role in bootstrap.roles:
        samples = measured[role].samples
        for score in [name.removesuffix("_own") for name in samples if name.endswith("_own")]:
            own, other = samples[f"{score}_own"], samples[f"{score}_other"]
            for name, value in detection(own, other).items():
                resampled = bootstrap.auroc(own, other) if name == "auroc" else np.array([value])
                said.setdefault(f"{score}_{name}", {})[role] = resampled
    return said


def _mean(several: Sequence[_Detected]) -> _Detected:
    import numpy as np

    return {
        name: {role: np.mean([one[name][role] for one in several], 0) for role in roles}
        for name, roles in several[0].items()
    }


def _entry(by_role: Mapping[str, Resampled], bootstrap: Bootstrap) -> Mapping[str, object]:
    if all(len(values) > 1 for values in by_role.values()):
        return bootstrap.entry(by_role)
    return {role: float(values[0]) for role, values in by_role.items()}
