"""What does the training data do: few, noisy, unlabeled, imbalanced?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdexp.report import glossary
from kdexp.report.comparison import Comparison, plain
from kdexp.report.condition_curves import CONDITIONS, ConditionCurve, condition_curves
from kdexp.report.elements import (
    INTERVAL,
    Cell,
    Column,
    Figure,
    Section,
    Table,
    gain_interval,
    gain_mean,
    metric,
    number,
    tabulate,
)
from kdexp.report.plotly_figures.condition import condition, condition_gains
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import FEWEST_SEEDS, with_p


def sections(comparison: Comparison) -> Iterator[Section]:
    """A section for each condition of the training data that was swept."""
    found: dict[str, list[ConditionCurve]] = {}
    for curve in condition_curves(comparison):
        found.setdefault(curve.axis, []).append(curve)
    for axis, curves in found.items():
        yield Section(
            axis.rpartition(".")[2].replace("_", "-"),
            f"Over the {CONDITIONS[axis]}",
            f"Means over seeds with 95 % t intervals ({FEWEST_SEEDS} seeds or more). Gains are paired by seed; their p "
            "values are not corrected for the number of points. The teacher is the one that the student of that "
            "point had.",
            {curve.where: list(_figures(curve)) for curve in curves},
            _table(axis, curves),
        )


def _figures(curve: ConditionCurve) -> Iterator[Figure]:
    yield Figure(glossary.known(curve.measure).title, condition(curve))
    gains = condition_gains(curve)
    if gains:
        yield Figure("Gain over the control", gains)


@dataclass(frozen=True)
class _Row:
    """One student at one level of the condition."""

    label: str
    level: float
    teacher: float | None
    control: RunGroup | None
    student: RunGroup

    @property
    def verdict(self) -> str:
        gain = self.student.gain
        return with_p(gain.verdict, gain.p) if gain else "no control"


def _table(axis: str, curves: Sequence[ConditionCurve]) -> Table:
    columns = [
        Column[_Row]("student", lambda row: row.label, "word"),
        Column[_Row](axis, lambda row: Cell(plain(row.level), row.level)),
        Column[_Row]("teacher", lambda row: number(row.teacher, row.student.measure)),
        Column[_Row]("control", lambda row: metric(row.control, row.student.measure)),
        Column[_Row]("distilled", lambda row: metric(row.student, row.student.measure)),
        Column[_Row]("gain", lambda row: gain_mean(row.student.gain, row.student.measure)),
        Column[_Row](INTERVAL, lambda row: gain_interval(row.student.gain, row.student.measure)),
        Column[_Row]("verdict", lambda row: row.verdict, "word"),
    ]
    return tabulate(columns, [row for curve in curves for row in _rows(curve)])


def _rows(curve: ConditionCurve) -> Iterator[_Row]:
    teachers, controls = curve.teacher, curve.control.groups if curve.control else {}
    for line in curve.students:
        label = " ".join(filter(None, (curve.where, line.label)))
        for level, group in line.groups.items():
            yield _Row(label, level, teachers.get(level), controls.get(level), group)
