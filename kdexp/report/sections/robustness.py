"""How robust are teacher, control and student: corruptions, noise, attacks, calibration?"""

from collections.abc import Iterator
from dataclasses import dataclass

from kdexp.report import glossary
from kdexp.report.colors import ROLES
from kdexp.report.comparison import Comparison
from kdexp.report.elements import INTERVAL, Cell, Column, Figure, Section, tabulate
from kdexp.report.plotly_figures.robustness import corruptions, levels, reliability, severities
from kdexp.report.robustness import MetricOverSeeds, Reports, accuracy_over_seeds, flat, measure_of, metrics_over_seeds
from kdexp.report.robustness_text import UNITS, answer, answer_over_seeds, words
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import FEWEST_SEEDS, with_p
from kdexp.robustness.axes.corruptions import is_of_corruptions


@dataclass(frozen=True)
class _Row:
    """One metric of one configuration."""

    label: str
    over_seeds: MetricOverSeeds

    @property
    def metric(self) -> glossary.Metric:
        return glossary.known(self.over_seeds.name)

    @property
    def head(self) -> str:
        return glossary.label(self.over_seeds.axis, self.over_seeds.name)

    def mean(self, role: str) -> Cell:
        value = self.over_seeds.means.get(role)
        return Cell("") if value is None else Cell(self.metric.number(value), value)

    @property
    def difference(self) -> Cell:
        gain = self.over_seeds.gain
        return Cell("") if gain is None else Cell(self.metric.number(gain.mean, sign=True), gain.mean)

    @property
    def interval(self) -> Cell:
        ends = self.over_seeds.gain.interval if self.over_seeds.gain else None
        return Cell(" to ".join(self.metric.number(end, sign=True) for end in ends), ends[0]) if ends else Cell("")

    @property
    def verdict(self) -> str:
        gain = self.over_seeds.gain
        return with_p(self.over_seeds.verdict, gain.p) if gain else ""


_COLUMNS = [
    Column[_Row]("configuration", lambda row: row.label, "word"),
    Column[_Row]("metric", lambda row: row.head, "word"),
    Column[_Row]("teacher", lambda row: row.mean("teacher")),
    Column[_Row]("control", lambda row: row.mean("control")),
    Column[_Row]("student", lambda row: row.mean("student")),
    Column[_Row]("student - control", lambda row: row.difference),
    Column[_Row](INTERVAL, lambda row: row.interval),
    Column[_Row]("verdict", lambda row: row.verdict, "word"),
]


def sections(comparison: Comparison) -> Iterator[Section]:
    """The robustness reports of all runs that have one; of a comparison without students those of the controls."""
    found: dict[RunGroup, Reports] = {}
    for group in comparison.distilled or comparison.controls:
        reports = comparison.reports_of(group)
        if reports:
            found[group] = reports
    if not found:
        return
    lead = "\n".join(
        [
            *filter(None, (_answer(group, reports) for group, reports in found.items())),
            f"Means over seeds, lines are 95 % t intervals over them ({FEWEST_SEEDS} seeds or more); every network "
            "sees the same noise, and each is attacked for itself. Student less control is paired by seed; p values "
            f"are not corrected for the number of metrics. {UNITS}",
            *(f"{group.label}: {' '.join(words(reports))}" for group, reports in found.items()),
        ]
    )
    names = dict.fromkeys(
        name for reports in found.values() for report in reports for _, name, _ in flat(report["metrics"])
    )
    rows = [_Row(group.label, one) for group, reports in found.items() for one in metrics_over_seeds(reports)]
    table = tabulate(_COLUMNS, rows, list(glossary.explained(names)))
    figures = {group.label: list(_figures(reports)) for group, reports in found.items()}
    yield Section("robustness", "Robustness", lead, figures, table)


def _answer(group: RunGroup, reports: Reports) -> str:
    """Of one run by its test samples, of several by their seeds."""
    if group.is_control:
        return ""
    if len(reports) == 1:
        return f"{group.label}: {answer(reports[0])}"
    return answer_over_seeds(group.label, list(accuracy_over_seeds(reports)), measure_of(reports[0]))


def _figures(reports: Reports) -> Iterator[Figure]:
    rows = reports[0]["conditions"]
    for axis in dict.fromkeys(row["axis"] for row in rows):
        if is_of_corruptions(axis):
            yield Figure(f"Over severity: {axis}", severities(reports, axis))
            yield Figure(f"By corruption: {axis}", corruptions(reports, axis))
    for axis, name in dict.fromkeys((row["axis"], row["name"]) for row in rows):
        if axis in ("noise_levels", "attacks"):
            yield Figure(name.replace("_", " "), levels(reports, axis, name))
    for role in ROLES:
        diagram = reliability(reports, role)
        if diagram:
            yield Figure(f"Calibration of the {role}", diagram)
