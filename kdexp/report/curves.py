"""Settings along what was done to their training data: accuracy over the share of samples, of wrong labels, ..."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdexp.report.comparison import Comparison, Setting, is_for_controls, plain
from kdexp.report.statistics import Paired, paired

CONDITIONS = {
    "dataset.train_fraction": "share of the training samples",
    "dataset.label_noise": "share of wrong training labels",
    "dataset.unlabeled_fraction": "share of hidden training labels",
    "dataset.imbalance_ratio": "largest class over smallest, in the training samples",
}
"""Settings that make a curve, and what they are."""

IN_RATIOS = ("dataset.train_fraction", "dataset.imbalance_ratio")
"""Those whose steps are ratios: drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """One way of training at several doses of a condition.

    Attributes:
        label: which way.
        settings: dose -> the setting there; rising.
    """

    label: str
    settings: Mapping[float, Setting]

    def gains(self, doses: Sequence[float]) -> dict[int, list[float]]:
        """Seed -> its test accuracy less the control's at each dose; of the seeds that have all of them."""
        pairs: dict[int, list[float]] = {}
        for dose in doses:
            setting = self.settings[dose]
            for run in setting.runs:
                own, other = run.metric("acc"), setting.controls.get(run.seed)
                alone = other.metric("acc") if other else None
                if own is not None and alone is not None:
                    pairs.setdefault(run.seed, []).append(own - alone)
        return {seed: found for seed, found in sorted(pairs.items()) if len(found) == len(doses)}

    def mean_gain(self, doses: Sequence[float]) -> Paired | None:
        """The mean of `gains` over the doses, paired by seed."""
        return paired([statistics.fmean(found) for found in self.gains(doses).values()])


@dataclass(frozen=True)
class Curve:
    """What became of teacher, control and students along one condition.

    Attributes:
        axis: the setting, one of `CONDITIONS`.
        where: what else the training data were, where there are several such curves.
        control: the student trained alone; None when no control was run.
        students: the distilled ones.
    """

    axis: str
    where: str
    control: Line | None
    students: Sequence[Line]

    @property
    def teacher(self) -> dict[float, float]:
        """Dose -> mean test accuracy of the teachers there."""
        found: dict[float, list[float]] = {}
        for line in self.students:
            for dose, setting in line.settings.items():
                known = [run.teacher["test"]["acc"] for run in setting.runs if run.teacher]
                found.setdefault(dose, []).extend(known)
        return {dose: statistics.fmean(values) for dose, values in sorted(found.items()) if values}

    @property
    def lines(self) -> list[Line]:
        """Control and students."""
        return [*([self.control] if self.control else []), *self.students]


def curves(comparison: Comparison) -> list[Curve]:
    """The curves in a comparison: of every condition that was swept, for each kind of training data."""
    return [curve for axis in CONDITIONS if axis in comparison.axes for curve in _along(comparison, axis)]


def _along(comparison: Comparison, axis: str) -> Iterator[Curve]:
    ways: dict[str, dict[str, dict[float, Setting]]] = {}
    for setting in comparison.settings:
        data = {name: value for name, value in setting.axes.items() if name != axis and is_for_controls(name)}
        method = {name: value for name, value in setting.axes.items() if not is_for_controls(name)}
        label = "control" if setting.is_control else _words(method) or "distilled"
        ways.setdefault(_words(data), {}).setdefault(label, {})[float(setting.axes[axis])] = setting
    long = {
        where: {label: Line(label, dict(sorted(found.items()))) for label, found in lines.items() if len(found) > 1}
        for where, lines in ways.items()
    }
    long = {where: lines for where, lines in long.items() if any(label != "control" for label in lines)}
    for where, lines in long.items():
        students = [line for label, line in lines.items() if label != "control"]
        yield Curve(axis, where if len(long) > 1 else "", lines.get("control"), students)


def _words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={plain(value)}" for name, value in values.items())
