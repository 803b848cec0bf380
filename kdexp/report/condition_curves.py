"""Students along a condition of their training data: the fraction of samples, of noisy labels, ..."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kdexp.config.identity import is_for_controls
from kdexp.report import glossary
from kdexp.report.comparison import Comparison, plain
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import Paired, Point, paired

CONDITIONS = {
    "dataset.train_fraction": "fraction of the training samples",
    "dataset.label_noise": "fraction of noisy training labels",
    "dataset.unlabeled_fraction": "fraction of unlabeled training samples",
    "dataset.imbalance_ratio": "largest class over smallest, in the training samples",
}
"""Config keys that make a curve, and what they are."""

IN_RATIOS = ("dataset.train_fraction", "dataset.imbalance_ratio")
"""Those whose steps are ratios: drawn on a logarithmic axis."""


@dataclass(frozen=True)
class ConditionLine:
    """One way of training at several levels of a condition.

    Attributes:
        label: which way.
        groups: level -> the run group there; rising.
    """

    label: str
    groups: Mapping[float, RunGroup]

    @property
    def measure(self) -> str:
        """The metric that the runs are compared by."""
        return next(iter(self.groups.values())).measure

    def points(self) -> list[Point]:
        """The `measure` on test at each level where it was measured."""
        found = ((level, group.estimate(self.measure)) for level, group in self.groups.items())
        return [Point(level, estimate) for level, estimate in found if estimate is not None]

    def gain_points(self) -> list[Point]:
        """Gain over the control at each level that has one."""
        return [Point(level, group.gain.estimate) for level, group in self.groups.items() if group.gain is not None]

    def gains(self, levels: Sequence[float]) -> dict[int, list[float]]:
        """Seed -> by how much its `measure` on test is better than the control's at each level; of seeds with all."""
        pairs: dict[int, list[float]] = {}
        for level in levels:
            group = self.groups[level]
            for run in group.runs:
                own, other = run.metric(self.measure), group.controls.get(run.seed)
                alone = other.metric(self.measure) if other else None
                if own is not None and alone is not None:
                    pairs.setdefault(run.seed, []).append(glossary.known(self.measure).gain(own, alone))
        return {seed: found for seed, found in sorted(pairs.items()) if len(found) == len(levels)}

    def mean_gain(self, levels: Sequence[float]) -> Paired | None:
        """The mean of `gains` over the levels, paired by seed."""
        return paired([statistics.fmean(found) for found in self.gains(levels).values()])


@dataclass(frozen=True)
class ConditionCurve:
    """What became of teacher, control and students along one condition.

    Attributes:
        axis: the config key, one of `CONDITIONS`.
        where: what else the training data were, where there are several such curves.
        control: the student trained alone; None when no control was run.
        students: the distilled ones.
    """

    axis: str
    where: str
    control: ConditionLine | None
    students: Sequence[ConditionLine]

    @property
    def teacher(self) -> dict[float, float]:
        """Level -> mean over the teachers there of the measure on test."""
        found: dict[float, list[float]] = {}
        for line in self.students:
            for level, group in line.groups.items():
                known = [run.teacher["test"][run.measure] for run in group.runs if run.teacher]
                found.setdefault(level, []).extend(known)
        return {level: statistics.fmean(values) for level, values in sorted(found.items()) if values}

    @property
    def measure(self) -> str:
        """The metric that the runs are compared by."""
        return self.students[0].measure

    @property
    def lines(self) -> list[ConditionLine]:
        """Control and students."""
        return [*([self.control] if self.control else []), *self.students]


def condition_curves(comparison: Comparison) -> list[ConditionCurve]:
    """The curves in a comparison: of every condition that was swept, for each kind of training data."""
    return [curve for axis in CONDITIONS if axis in comparison.axes for curve in _along(comparison, axis)]


def _along(comparison: Comparison, axis: str) -> Iterator[ConditionCurve]:
    ways: dict[str, dict[str, dict[float, RunGroup]]] = {}
    for group in comparison.groups:
        data = {name: value for name, value in group.axes.items() if name != axis and is_for_controls(name)}
        method = {name: value for name, value in group.axes.items() if not is_for_controls(name)}
        label = "control" if group.is_control else _words(method) or "distilled"
        ways.setdefault(_words(data), {}).setdefault(label, {})[float(group.axes[axis])] = group
    long = {
        where: {
            label: ConditionLine(label, dict(sorted(found.items()))) for label, found in lines.items() if len(found) > 1
        }
        for where, lines in ways.items()
    }
    long = {where: lines for where, lines in long.items() if any(label != "control" for label in lines)}
    for where, lines in long.items():
        students = [line for label, line in lines.items() if label != "control"]
        yield ConditionCurve(axis, where if len(long) > 1 else "", lines.get("control"), students)


def _words(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={plain(value)}" for name, value in values.items())
