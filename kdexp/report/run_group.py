"""Completed runs that differ in nothing but the seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kdexp.report.glossary import known
from kdexp.report.runs import Run
from kdexp.report.statistics import Estimate, Interval, Paired, paired, t_interval, wilson
from kdexp.results import Record


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Completed runs that differ in nothing but the seed.

    Attributes:
        label: tells it from the other groups of the comparison.
        axes: the config keys in which the groups differ -> their values here.
        runs: one a seed, by seed.
        family: equal for groups that have the same control.
        controls: the runs of its control, by seed; its own when it is the control.
    """

    label: str
    axes: Record
    runs: Sequence[Run]
    family: str = ""
    controls: Mapping[int, Run] = field(default_factory=dict)

    @property
    def is_control(self) -> bool:
        """Whether the student is trained alone."""
        return self.runs[0].is_control

    @property
    def measure(self) -> str:
        """The metric that the runs are compared by."""
        return self.runs[0].measure

    @property
    def trials(self) -> int | None:
        """How many trials of a search it is the best of; None of what was not searched."""
        found: int | None = self.runs[0].tuned.get("control_trials" if self.is_control else "trials")
        return found

    def values(self, name: str, split: str = "test", epoch: str = "best") -> list[float]:
        """A metric of each run that has it."""
        return [value for run in self.runs if (value := run.metric(name, split, epoch)) is not None]

    def mean(self, name: str, split: str = "test", epoch: str = "best") -> float | None:
        """A metric's mean over seeds; None when no run has it."""
        values = self.values(name, split, epoch)
        return statistics.fmean(values) if values else None

    def std(self, name: str, split: str = "test", epoch: str = "best") -> float | None:
        """A metric's standard deviation (n - 1) over seeds; None of fewer than two."""
        values = self.values(name, split, epoch)
        return statistics.stdev(values) if len(values) > 1 else None

    def interval(self, name: str, split: str = "test", epoch: str = "best") -> Interval | None:
        """95 % interval of the mean: the t interval over seeds; of one run's accuracy Wilson's over test samples.

        None of two seeds, and of one run's other metrics: see `t_interval`.
        """
        values = self.values(name, split, epoch)
        samples = self.runs[0].results.get("samples", {}).get(split)
        if len(values) == 1 and name == self.measure == "acc" and samples:
            return wilson(values[0], samples)
        return t_interval(values)

    def estimate(self, name: str, split: str = "test", epoch: str = "best") -> Estimate | None:
        """A metric's `mean` and `interval`; None when no run has it."""
        mean = self.mean(name, split, epoch)
        return None if mean is None else Estimate(mean, self.interval(name, split, epoch))

    @cached_property
    def gain(self) -> Paired | None:
        """The `measure` on test against that of the control with the same seed; None of the control, or without one.

        Positive where it is better.
        """
        if self.is_control:
            return None
        better = known(self.measure).gain
        pairs = [
            (run.metric(self.measure), self.controls[run.seed].metric(self.measure))
            for run in self.runs
            if run.seed in self.controls
        ]
        return paired([better(own, alone) for own, alone in pairs if own is not None and alone is not None])

    @property
    def mean_gain(self) -> float | None:
        """Mean of `gain`."""
        return None if self.gain is None else self.gain.mean
