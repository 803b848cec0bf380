"""The numbers of robustness reports (robustness.json): by metric, over seeds, over severity."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kdexp.report import glossary
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import Estimate, Paired, Point, paired, t_interval
from kdexp.results import Record
from kdexp.robustness.settings import ROLES

Report = Record
"""The content of a robustness.json."""

Reports = Sequence[Report]
"""Those of one configuration: a seed each."""

Row = Record
"""An entry of a report's ``conditions``: one network's `measure_of` under one condition."""


def measure_of(report: Report) -> str:
    """The metric that the networks of a report are compared by; accuracy where it does not say."""
    return str(report.get("measure", "acc"))


def metric_of(report: Report) -> glossary.Metric:
    """The same in words."""
    return glossary.known(measure_of(report))


def over_severity(reports: Reports, axis: str, role: str) -> list[Point]:
    """Severity (0: clean), a network's mean over corruptions and seeds, and its interval over seeds."""
    return level_points(reports, role, lambda row: row["axis"] == axis or is_clean(row))


def is_of(axis: str, name: str, row: Row) -> bool:
    """Whether an entry is of this condition."""
    return bool(row["axis"] == axis and row["name"] == name)


def is_clean(row: Row) -> bool:
    """Whether an entry is of clean test data."""
    return bool(row["axis"] == "clean")


def by_seed(reports: Reports, role: str, wanted: Callable[[Row], bool]) -> list[float]:
    """Of each report the mean of its measure over its wanted conditions."""
    found = []
    for report in reports:
        name = measure_of(report)
        values = [row[name] for row in report["conditions"] if row["model"] == role and wanted(row)]
        if values:
            found.append(float(np.mean(values)))
    return found


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """The mean and the t interval of it; without seeds enough no interval."""
    return Estimate(float(np.mean(values)), t_interval(values))


def level_points(reports: Reports, role: str, wanted: Callable[[Row], bool]) -> list[Point]:
    """The measure at each level of a condition, mean over seeds with the t interval over them."""
    levels = sorted({row["level"] for row in reports[0]["conditions"] if row["model"] == role and wanted(row)})

    def at(level: float) -> list[float]:
        return by_seed(reports, role, lambda row: wanted(row) and row["level"] == level)

    return [Point(level, mean_over_seeds(values)) for level in levels if (values := at(level))]


@dataclass(frozen=True)
class MetricOverSeeds:
    """One metric of one configuration's reports.

    Attributes:
        axis: of the robustness report.
        name: of the metric.
        values: teacher, control and student, as far as they have any -> a value a seed.
        gain: the differences of student and control, paired by seed; None where there is none.
    """

    axis: str
    name: str
    values: Mapping[str, Sequence[float]]
    gain: Paired | None

    @property
    def means(self) -> dict[str, float]:
        """Role -> mean over seeds."""
        return {role: statistics.fmean(known) for role, known in self.values.items()}

    @property
    def verdict(self) -> str:
        """`Paired.verdict`, which takes more for better, in the sense of the metric; empty without a gain."""
        if self.gain is None:
            return ""
        if glossary.known(self.name).lower_is_better:
            return {"better": "worse", "worse": "better"}.get(self.gain.verdict, self.gain.verdict)
        return self.gain.verdict

    def as_json(self) -> Record:
        """As it stands in a sweep's robustness.json."""
        return {
            "axis": self.axis,
            "metric": self.name,
            "values": self.values,
            "mean": self.means,
            "difference": asdict(self.gain) | {"verdict": self.verdict} if self.gain is not None else None,
        }


def over_seeds(groups: Sequence[RunGroup], reports: Mapping[Path, Report]) -> dict[str, object]:
    """What several runs' reports say together: every metric over the seeds of each configuration.

    Args:
        groups: distilled ones, see `kdexp.report.comparison.Comparison`.
        reports: of their runs, by run folder.

    Returns:
        The content of a sweep's robustness.json: for each configuration, axis and metric the values of the networks by
        seed, their means, and the difference of student and control paired by seed.
    """
    return {
        "settings": [
            {
                "label": group.label,
                "measure": measure_of(reports[group.runs[0].folder]),
                "seeds": [run.seed for run in group.runs],
                "runs": [str(run.folder) for run in group.runs],
                "accuracy_under": list(accuracy_over_seeds([reports[run.folder] for run in group.runs])),
                "metrics": [one.as_json() for one in metrics_over_seeds([reports[run.folder] for run in group.runs])],
            }
            for group in groups
        ]
    }


def metrics_over_seeds(reports: Reports) -> Iterator[MetricOverSeeds]:
    """Each metric of one configuration's reports."""
    entries = [{(axis, name): entry for axis, name, entry in flat(report["metrics"])} for report in reports]
    for axis, name in entries[0]:
        found = [one[axis, name] for one in entries if (axis, name) in one]
        values = {role: known for role in ROLES if (known := [one[role] for one in found if one.get(role) is not None])}
        differences = [one["difference"]["value"] for one in found if "difference" in one]
        gain = paired([value for value in differences if value is not None])
        yield MetricOverSeeds(axis, name, values, gain)


def accuracy_over_seeds(reports: Reports) -> Iterator[Record]:
    """The measure under each condition: the difference of student and control, paired by seed, and its t test."""
    found: dict[str, list[float]] = {}
    for report in reports:
        for condition, entry in report.get("accuracy_under", {}).items():
            value = entry.get("difference", {}).get("value")
            if value is not None:
                found.setdefault(condition, []).append(value)
    for condition, values in found.items():
        gain = paired(values)
        assert gain is not None
        yield {"condition": condition, "difference": asdict(gain) | {"verdict": gain.verdict}}


DIFFERENCES = ("difference", "export_difference")
"""Keys of an entry that are no role: see `kdexp.robustness.bootstrap.Bootstrap.entry`."""


def flat(metrics: Report) -> Iterator[tuple[str, str, Row]]:
    """Axis, metric (``fog mean_acc`` where a metric belongs to one perturbation) and its values by role."""
    for axis, parts in metrics.items():
        for name, part in parts.items():
            if any(isinstance(value, Mapping) and key not in DIFFERENCES for key, value in part.items()):
                yield from ((axis, f"{name} {metric}", entry) for metric, entry in part.items())
            else:
                yield axis, name, part
