"""Evaluates the robustness of networks on a run's data: measures each cell once and keeps it, and makes the report."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdexp.atomic import atomic_path
from kdexp.config import quick
from kdexp.config.identity import fingerprint
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.robustness_inputs import TestBed
from kdexp.report import robustness_json
from kdexp.results import Record
from kdexp.robustness import configured
from kdexp.robustness import settings as robustness
from kdexp.robustness.aggregate import Summary
from kdexp.robustness.attacks import Network, Normalized
from kdexp.robustness.axes.base import Axis
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.grid import Cell, Measured, Networks

log = logging.getLogger(__name__)

# A part of what identifies a measured cell: another number when the same cell would give other values.
_CELLS_VERSION = 1


@dataclass(frozen=True)
class Subject:
    """A network that is measured.

    Attributes:
        network: normalised inputs to logits, in eval mode, on the device.
        digest: identifies its weights.
        folder: where its measured cells are kept.
        represent: normalised inputs to what its classifier gets; None of several networks.
    """

    network: Network
    digest: str
    folder: Path
    represent: Network | None


class RobustnessEvaluator:
    """The cells of one run's test data, and what is left out and why.

    Args:
        experiment: the run's, with conf/robustness.
        device: where the networks are.

    Attributes:
        cells: of the clean test set, then of the axes, in the order of the report's rows.
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
        self._by_axis: list[tuple[Axis, list[Cell]]] = []
        for axis in configured.axes(self._settings):
            found = axis.cells(self._bed.grid, self._bed)
            self._by_axis.append((axis, [cell.on(sample) for cell in found]))
        self.cells = [self._bed.grid.clean().on(sample), *(cell for _, cells in self._by_axis for cell in cells)]
        if len(self.cells) == 1:
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
        measured = [self.measured(cell, ordered) for cell in _watched(self.cells)]
        summary = self._summary(measured)
        notes = [
            f"{cell.name}: {role}: {note}"
            for cell, found in zip(self.cells, measured, strict=True)
            for role, one in found.items()
            for note in one.notes
        ]
        report = {
            "dataset": self._config.dataset.name,
            "samples": self._bed.grid.samples,
            "sample_counts": self._bed.sample_counts,
            "models": {role: {"digest": own.digest, "cells": str(own.folder)} for role, own in ordered.items()},
            "settings": robustness.recorded(self._settings),
            "notes": [*self.notes, *notes],
            "accuracy_under": summary.accuracy_under(),
            "measures": summary.measures(),
            **summary.extra(),
            "cells": summary.rows(),
            "seconds": time.perf_counter() - started,
        }
        return robustness_json.write(report, folder)

    def _summary(self, measured: Sequence[Mapping[str, Measured]]) -> Summary:
        settings, (clean, *others) = robustness.of_report(self._settings), measured
        bootstrap = Bootstrap(
            clean, seed=settings.seed, n_resamples=settings.n_resamples, confidence_level=settings.confidence_level
        )
        left = iter(others)
        by_axis = [(axis, [(cell, next(left)) for cell in cells]) for axis, cells in self._by_axis]
        return Summary([(self.cells[0], clean)], by_axis, bootstrap)

    def measured(self, cell: Cell, subjects: Mapping[str, Subject]) -> dict[str, Measured]:
        """What is known of a cell, and the rest, which is measured and kept.

        Args:
            cell: one of `cells`.
            subjects: by role, the teacher first.
        """
        teacher = subjects.get(robustness.TEACHER)
        files = {}
        for role, own in subjects.items():
            guide = teacher.digest if teacher is not None and role != robustness.TEACHER else None
            files[role] = own.folder / f"{self.key(cell, own.digest, guide)}.safetensors"
        known = {role: kept for role, file in files.items() if (kept := read_cell(file)) is not None}
        if cell.positions is not None:
            # Keys of an older kdexp did not tell on how many samples a cell had been measured.
            n = len(cell.positions)
            known = {role: kept for role, kept in known.items() if len(kept.samples["right"]) == n}
        unknown = [role for role in subjects if role not in known]
        if unknown:
            needed = {role: own for role, own in subjects.items() if role in unknown or role == robustness.TEACHER}
            for role, one in cell.measure(self._networks(needed)).items():
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
            keep_cell(file, measured)
        except OSError as error:  # in a store, or beside a control, of somebody else's
            note = f"{role}: its cells are not kept in {file.parent}: {error.strerror}"
            self.notes += [note] if note not in self.notes else []

    def key(self, cell: Cell, digest: str, teacher: str | None) -> str:
        """Identifies what a measured cell depends on.

        Args:
            cell: one of `cells`.
            digest: of the network's weights.
            teacher: of its teacher's; None: it has none.
        """
        dataset, grid = self._config.dataset, self._bed.grid
        return fingerprint(
            {
                "version": _CELLS_VERSION,
                "cell": [cell.axis, cell.name, cell.level, cell.settings],
                "network": [digest, teacher],
                "data": {key: dataset[key] for key in ("name", "task", "mean", "std", "val_fraction", "split_seed")},
                "content": self._data.content,
                "samples": [grid.seed, grid.samples],
                **quick.mark(self._config.quick),
            }
        )


def keep_cell(file: Path, measured: Measured) -> None:
    """Write what was measured of one network in one cell, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    said = {"values": json.dumps(dict(measured.values)), "notes": json.dumps(list(measured.notes))}
    with atomic_path(file) as temporary:
        save_file({name: values.cpu().contiguous() for name, values in measured.samples.items()}, temporary, said)


def read_cell(file: Path) -> Measured | None:
    """A cell that was measured before; None when there is none, or it is damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            said = stored.metadata()
            samples = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        return Measured(json.loads(said["values"]), samples, json.loads(said["notes"]))
    except (SafetensorError, OSError, ValueError, LookupError, TypeError):
        return None


def _watched(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, with progress and the time left shown: a bar on a terminal, else a line now and then."""
    if sys.stdout.isatty():
        from rich.progress import track

        yield from track(cells, "robustness", transient=True)
        return
    started = said = time.perf_counter()
    for done, cell in enumerate(cells):
        now = time.perf_counter()
        if done and now - said > 5:
            said = now
            left = (now - started) / done * (len(cells) - done)
            log.info("robustness: %d of %d cells, %s %s  %.0f s left", done, len(cells), cell.axis, cell.name, left)
        yield cell
