"""Evaluates the robustness of networks on a run's data: measures each condition once, and makes the report."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdexp.config import quick
from kdexp.config.identity import fingerprint
from kdexp.config.renamed import before
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.measured_conditions import keep_condition, read_condition
from kdexp.experiment.robustness_inputs import TestBed
from kdexp.report import robustness_artifacts
from kdexp.results import Record
from kdexp.robustness import configured
from kdexp.robustness import settings as robustness
from kdexp.robustness.aggregate import Summary
from kdexp.robustness.attacks import Network, Normalized
from kdexp.robustness.axes.base import Axis
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.grid import Condition, Measured, Networks

log = logging.getLogger(__name__)

# A part of what identifies a measured condition: another number when the same condition would give other values.
_CONDITIONS_VERSION = 1
_OF_DATA = ("name", "kind", "mean", "std", "val_fraction", "split_seed")


@dataclass(frozen=True)
class Subject:
    """A network that is measured.

    Attributes:
        network: normalised inputs to logits, in eval mode, on the device.
        digest: identifies its weights.
        folder: where what was measured is kept.
        represent: normalised inputs to what its classifier gets; None of several networks.
    """

    network: Network
    digest: str
    folder: Path
    represent: Network | None


class RobustnessEvaluator:
    """The conditions of one run's test data, and what is left out and why.

    Args:
        experiment: the run's, with conf/robustness.
        device: where the networks are.

    Attributes:
        conditions: of the clean test set, then of the axes, in the order of the report's rows.
        notes: what a reader of the report must know.

    Raises:
        ValueError: a setting that makes no sense, or nothing is left to measure.
        FileNotFoundError: a data set that was named is not there.
    """

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        config = experiment.config
        self._config, self._data, self._device = config, experiment.data, device
        self._settings = experiment.values["robustness"]
        self._bed = TestBed(experiment, device)
        self.notes = self._bed.notes
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
        started = time.perf_counter()
        ordered = {role: subjects[role] for role in robustness.ROLES if role in subjects}
        measured = [self.measured(condition, ordered) for condition in _watched(self.conditions)]
        summary = self._summary(measured)
        notes = [
            f"{condition.name}: {role}: {note}"
            for condition, found in zip(self.conditions, measured, strict=True)
            for role, one in found.items()
            for note in one.notes
        ]
        report = {
            "dataset": self._config.dataset.name,
            "samples": self._bed.grid.samples,
            "sample_counts": self._bed.sample_counts,
            "models": {role: {"digest": own.digest, "conditions": str(own.folder)} for role, own in ordered.items()},
            "settings": robustness.recorded(self._settings),
            "notes": [*self.notes, *notes],
            "accuracy_under": summary.accuracy_under(),
            "metrics": summary.metrics(),
            **summary.extra(),
            "conditions": summary.rows(),
            "seconds": time.perf_counter() - started,
        }
        return robustness_artifacts.write(report, folder)

    def _summary(self, measured: Sequence[Mapping[str, Measured]]) -> Summary:
        settings, (clean, *others) = robustness.of_report(self._settings), measured
        bootstrap = Bootstrap(
            clean, seed=settings.seed, n_resamples=settings.n_resamples, confidence_level=settings.confidence_level
        )
        left = iter(others)
        by_axis = [(axis, [(condition, next(left)) for condition in conditions]) for axis, conditions in self._by_axis]
        return Summary([(self.conditions[0], clean)], by_axis, bootstrap)

    def measured(self, condition: Condition, subjects: Mapping[str, Subject]) -> dict[str, Measured]:
        """What is known of a condition, and the rest, which is measured and kept.

        Args:
            condition: one of `conditions`.
            subjects: by role, the teacher first.
        """
        teacher = subjects.get(robustness.TEACHER)
        files = {}
        for role, own in subjects.items():
            guide = teacher.digest if teacher is not None and role != robustness.TEACHER else None
            files[role] = own.folder / f"{self.key(condition, own.digest, guide)}.safetensors"
        known = {role: kept for role, file in files.items() if (kept := read_condition(file)) is not None}
        if condition.positions is not None:
            # Keys of an older kdexp did not tell on how many samples a condition had been measured.
            n = len(condition.positions)
            known = {role: kept for role, kept in known.items() if len(kept.samples["right"]) == n}
        unknown = [role for role in subjects if role not in known]
        if unknown:
            needed = {role: own for role, own in subjects.items() if role in unknown or role == robustness.TEACHER}
            for role, one in condition.measure(self._networks(needed)).items():
                if role in unknown:
                    known[role] = one
                    self._keep(role, files[role], one)
        return {role: known[role] for role in subjects}

    def _networks(self, subjects: Mapping[str, Subject]) -> Networks:
        return Networks(
            {role: self._network(own.network) for role, own in subjects.items()},
            {
                role: robustness.TEACHER
                for role in subjects
                if role != robustness.TEACHER and robustness.TEACHER in subjects
            },
            {role: self._network(own.represent) for role, own in subjects.items() if own.represent is not None},
        )

    def _network(self, network: Network) -> Network:
        """In the space of the grid's inputs."""
        if not self._bed.grid.is_image:
            return network
        return Normalized(network, list(self._config.dataset.mean), list(self._config.dataset.std)).to(self._device)

    def _keep(self, role: str, file: Path, measured: Measured) -> None:
        try:
            keep_condition(file, measured)
        except OSError as error:  # in a store, or beside a control, of somebody else's
            note = f"{role}: what was measured is not kept in {file.parent}: {error.strerror}"
            self.notes += [note] if note not in self.notes else []

    def key(self, condition: Condition, digest: str, teacher: str | None) -> str:
        """Identifies what a measured condition depends on.

        Args:
            condition: one of `conditions`.
            digest: of the network's weights.
            teacher: of its teacher's; None: it has none.
        """
        dataset, grid = self._config.dataset, self._bed.grid
        return fingerprint(
            {
                "version": _CONDITIONS_VERSION,
                "cell": condition.identity,
                "network": [digest, teacher],
                "data": before({"dataset": {key: dataset[key] for key in _OF_DATA}})["dataset"],
                "content": self._data.content,
                "samples": [grid.seed, grid.samples],
                **quick.mark(self._config.quick),
            }
        )


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
