"""Evaluates the robustness of networks on a run's data: under which conditions, and the report of all of them."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from kdexp.experiment.experiment import Experiment
from kdexp.experiment.measured_conditions import Measurements, Subject
from kdexp.experiment.robustness_inputs import TestBed
from kdexp.report import robustness_artifacts
from kdexp.results import Record
from kdexp.robustness import configured
from kdexp.robustness import settings as robustness
from kdexp.robustness.aggregate import Summary
from kdexp.robustness.axes.base import Axis
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.grid import Condition, Measured

log = logging.getLogger(__name__)


class RobustnessEvaluator:
    """The conditions of one run's test data, and what is left out and why.

    Args:
        experiment: the run's, with conf/robustness.
        device: where the networks are.

    Attributes:
        conditions: of the clean test set, then of the axes, in the order of the report's rows.
        measurements: what is measured under the conditions.
        notes: what a reader of the report must know.

    Raises:
        ValueError: a setting that makes no sense, or nothing is left to measure.
        FileNotFoundError: a data set that was named is not there.
    """

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        config, task = experiment.config, experiment.data.task
        if "robustness" not in task.supports:
            rule = f"must be null for task={type(task).__name__.lower()}"
            raise ValueError(f"robustness {rule}, got {', '.join(robustness.of_axes(experiment.values['robustness']))}")
        self._dataset_name, self._task = config.dataset.name, task
        self._settings = experiment.values["robustness"]
        self._bed = TestBed(experiment, device)
        self.notes = self._bed.notes
        self.measurements = Measurements(experiment, self._bed, device)
        sample = self._bed.own.test
        self._by_axis: list[tuple[Axis, list[Condition]]] = []
        for axis in configured.axes(self._settings):
            found = axis.conditions(self._bed.grid, self._bed)
            self._by_axis.append((axis, [condition.on(sample) for condition in found]))
        self.conditions = [self._bed.grid.clean().on(sample), *(one for _, found in self._by_axis for one in found)]
        if len(self.conditions) == 1:
            raise ValueError(
                f"robustness must leave something to measure for dataset={config.dataset.name}, "
                f"got nothing: {'; '.join(self.notes) or 'no axis'}"
            )

    def report(self, subjects: Mapping[str, Subject], folder: Path) -> Record:
        """Measure what has not been measured yet, and write robustness.json, robustness.csv and the figures.

        Args:
            subjects: by role, see `kdexp.robustness.settings.ROLES`.
            folder: where they are written.

        Returns:
            The content of robustness.json.
        """
        return robustness_artifacts.write(self.found(subjects), folder)

    def found(self, subjects: Mapping[str, Subject]) -> Record:
        """The same report, which is not written."""
        started = time.perf_counter()
        ordered = {role: subjects[role] for role in robustness.ROLES if role in subjects}
        measured = [self.measurements.of(condition, ordered) for condition in _watched(self.conditions)]
        summary = self._summary(measured)
        notes = [
            f"{condition.name}: {role}: {note}"
            for condition, found in zip(self.conditions, measured, strict=True)
            for role, one in found.items()
            for note in one.notes
        ]
        return {
            "dataset": self._dataset_name,
            "measure": self._task.measure,
            "samples": self._bed.grid.samples,
            "sample_counts": self._bed.sample_counts,
            "models": {role: {"digest": own.digest, "conditions": str(own.folder)} for role, own in ordered.items()},
            "settings": robustness.recorded(self._settings),
            "notes": [*self.notes, *notes],
            "accuracy_under": summary.measure_under(),
            "metrics": summary.metrics(),
            **summary.extra(),
            "conditions": summary.rows(),
            "seconds": time.perf_counter() - started,
        }

    def _summary(self, measured: Sequence[Mapping[str, Measured]]) -> Summary:
        settings, (clean, *others) = robustness.of_report(self._settings), measured
        bootstrap = Bootstrap(
            clean,
            self._task,
            seed=settings.seed,
            n_resamples=settings.n_resamples,
            confidence_level=settings.confidence_level,
        )
        left = iter(others)
        by_axis = [(axis, [(condition, next(left)) for condition in conditions]) for axis, conditions in self._by_axis]
        return Summary([(self.conditions[0], clean)], by_axis, bootstrap)


def _watched(conditions: Sequence[Condition]) -> Iterator[Condition]:
    """The conditions, with progress and the time left shown: a bar on a terminal, else a line now and then."""
    if sys.stdout.isatty():
        from rich.progress import track

        yield from track(conditions, "robustness", transient=True)
        return
    started = said = time.perf_counter()
    for done, condition in enumerate(conditions):
        now = time.perf_counter()
        if done and now - said > 5:
            said = now
            left = (now - started) / done * (len(conditions) - done)
            where = f"{condition.axis} {condition.name}"
            log.info("robustness: %d of %d conditions, %s  %.0f s left", done, len(conditions), where, left)
        yield condition
