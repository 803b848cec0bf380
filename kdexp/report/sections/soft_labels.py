"""The teacher, or soft labels? What the teacher adds to what soft labels do without one."""

from collections.abc import Iterator
from dataclasses import dataclass

from kdexp.report import glossary
from kdexp.report.comparison import Comparison, teachers_part
from kdexp.report.elements import INTERVAL, Column, Section, gain_interval, gain_mean, metric, tabulate
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import Paired, with_p


@dataclass(frozen=True)
class _Row:
    """A student with a teacher beside one whose soft labels have none of the teacher's knowledge."""

    taught: RunGroup
    placebo: RunGroup
    gain: Paired

    @property
    def verdict(self) -> str:
        return with_p(self.gain.verdict, self.gain.p)


def _columns(measure: str) -> list[Column[_Row]]:
    name = glossary.known(measure).column
    return [
        Column[_Row]("taught", lambda row: row.taught.label, "word"),
        Column[_Row]("placebo", lambda row: row.placebo.label, "word"),
        Column[_Row](f"taught, {name}", lambda row: metric(row.taught, measure)),
        Column[_Row](f"placebo, {name}", lambda row: metric(row.placebo, measure)),
        Column[_Row]("difference", lambda row: gain_mean(row.gain, measure)),
        Column[_Row](INTERVAL, lambda row: gain_interval(row.gain, measure)),
        Column[_Row]("verdict", lambda row: row.verdict, "word"),
    ]


def sections(comparison: Comparison) -> Iterator[Section]:
    """The comparison with placebo losses, where any was run."""
    rows = [_Row(taught, placebo, gain) for taught, placebo, gain in teachers_part(comparison)]
    metric = glossary.known(comparison.measure)
    if rows:
        said = [
            f"{row.taught.label} against {row.placebo.label}: {metric.difference(row.gain.mean)}, {row.verdict}."
            for row in rows
        ]
        lead = (
            "A useful teacher must beat placebos: labels smoothed only to its uncertainty, its own outputs with the "
            f"wrong classes permuted. {' '.join(said)}"
        )
        table = tabulate(_columns(comparison.measure), rows)
        yield Section("soft-labels", "The teacher, or soft labels?", lead, table=table, wide=True)
