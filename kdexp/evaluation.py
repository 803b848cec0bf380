"""The robustness report: which cells, measured of which networks, kept cell by cell, and written."""

import copy
import csv
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdexp import assemble, quick, results
from kdexp.atomic import atomic_path
from kdexp.config import dataset_option, fingerprint, instantiate, plain, teachers
from kdexp.contracts import Batch, Split
from kdexp.data.loading import DataModule
from kdexp.data.splits import stratified_sample
from kdexp.features import Reader
from kdexp.report.png_figures import robustness as figures
from kdexp.robustness.attacks import Attack, Network, Normalized
from kdexp.robustness.cells import Batches, Cell, Grid, Measured, Networks
from kdexp.robustness.published import published_sets
from kdexp.robustness.summary import CONTROL, STUDENT, TEACHER, Summary
from kdexp.teacher import Teacher
from kdexp.weights import state_digest

log = logging.getLogger(__name__)

FILE = "robustness.json"
SCHEMA_VERSION = 1

# A part of what identifies a measured cell: another number when the same cell would give other values.
_CELLS_VERSION = 1

AXES = ("corruptions", "noise_dose", "attacks", "shift", "ood", "calibration", "features")


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


def run_subject(config: Any, folder: Path, device: torch.device) -> Subject:
    """The student of a finished run, whose cells are kept in its run folder."""
    learner = assemble.trained_student(config, folder / results.WEIGHTS, "run")
    digest, path = state_digest(learner), assemble.penultimate(config, "student", config.student, learner)
    reader = Reader(learner.to(device).eval(), [path] if path else [])
    represent = (lambda inputs: reader(inputs).features[path]) if path else None
    return Subject(learner, digest, folder / "robustness", represent)


def teacher_subject(config: Any, frozen: Teacher) -> Subject:
    """The teacher, whose cells are kept in the store, for every student of it. It reads its penultimate features."""
    digest = fingerprint([state_digest(network) for network in frozen.networks])
    path = None
    if len(frozen.networks) == 1:
        ((setting, member),) = teachers(config).items()
        path = assemble.penultimate(config, setting, member, frozen.networks[0])
    frozen.read([path] if path else [])
    represent = (lambda inputs: frozen(inputs).features[path]) if path else None
    return Subject(frozen.differentiable, digest, Path(config.store_dir) / "teacher-robustness" / digest, represent)


class Examination:
    """The cells of one run's test data, and what is left out and why.

    Args:
        config: the run's, with its robustness.
        data: the run's.
        device: where the networks are.

    Raises:
        ValueError: a setting that makes no sense, or nothing is left to measure.
        FileNotFoundError: a data set that was named is not there.
    """

    def __init__(self, config: Any, data: assemble.Data, device: torch.device) -> None:
        self._config, self._data, self._device = config, data, device
        self._settings: dict[str, Any] = plain(config.robustness)
        self.notes: list[str] = []
        shape = list(config.dataset.input_shape)
        self._is_image = len(shape) == 3
        self._sample_counts: dict[str, dict[str, Any]] = {}
        self._sample = self._some("test", data, data.student.splits.test, self._settings["samples"])
        self._test = _with_test(data.student, self._sample)
        self._grid = Grid(
            self._batches(self._test, "test"),
            task=config.dataset.task,
            outputs=config.dataset.num_outputs,
            shape=shape,
            samples=len(self._sample.positions),
            seed=self._settings["seed"],
        )
        cells = [self._grid.clean()]
        for axis in AXES:
            if axis in self._settings:
                cells += getattr(self, f"_{axis}")(**self._settings[axis])
        self.cells = [_of(cell, self._sample) for cell in cells]
        if len(self.cells) == 1:
            raise ValueError(f"robustness must leave something to measure for dataset={config.dataset.name}, "
                             f"got nothing: {'; '.join(self.notes) or 'no axis'}")  # fmt: skip

    # The axes

    def _corruptions(self, kinds: Mapping[str, Any], severities: Sequence[int], published: bool) -> list[Cell]:
        applicable = self._applicable("corruptions", kinds)
        cells = [
            self._grid.corruption(name, kind, severity) for name, kind in applicable.items() for severity in severities
        ]
        for found in published_sets(self._config.dataset.name, self._config.data_dir) if published else ():
            found.check(self._data.student.splits.test.target, self._grid.shape)
            cells += [
                self._grid.published(found, name, severity) for name in found.families for severity in found.severities
            ]
        return cells

    def _noise_dose(self, kinds: Mapping[str, Any]) -> list[Cell]:
        applicable = self._applicable("noise_dose", kinds)
        return [self._grid.noise(name, curve, dose) for name, curve in applicable.items() for dose in curve.doses]

    def _attacks(
        self,
        samples: int | None,
        features_scale: float,
        kinds: Mapping[str, Mapping[str, Any]],
        checks: bool,
        autoattack: Mapping[str, Any] | None,
    ) -> list[Cell]:
        some = self._some("attacks", self._data, self._test.splits.test, samples)
        batches = self._batches(_with_test(self._test, some), "test")
        grid = replace(self._grid, batches=batches, samples=len(some.positions))
        cells: list[Cell] = []
        for name, kind in kinds.items():
            curve = []
            for eps in kind["eps"]:
                curve.append(self._attack(name, kind, eps if self._is_image else eps * features_scale))
            cells += [grid.attack(name, attack) for attack in curve]
            if checks and kind["steps"] > 1:
                middle = curve[len(curve) // 2]
                cells.append(grid.attack(name, replace(middle, steps=4 * middle.steps), "attack_more_steps"))
                # Of several labels not all can be made wrong at once.
                if kind["norm"] == "linf" and grid.task != "multilabel":
                    whole = 1.0 if self._is_image else 100.0
                    unbounded = replace(middle, eps=whole, step_size=whole / 10, steps=50, random_start=False)
                    cells.append(grid.attack(name, unbounded, "attack_unbounded"))
        if autoattack:
            if not (self._is_image and self._config.dataset.task == "multiclass"):
                self.notes.append("autoattack is left out: it is for images of several classes")
            else:
                cells.append(grid.autoattack(autoattack["norm"], autoattack["eps"], autoattack["attacks"]))
        return [replace(_of(cell, some), positions=some.positions) for cell in cells]

    def _attack(self, name: str, kind: Mapping[str, Any], eps: float) -> Attack:
        try:
            return Attack(
                kind["norm"],
                eps,
                kind["steps"],
                eps * kind["step"],
                random_start=kind["random_start"],
                bounds=(0.0, 1.0) if self._is_image else None,
            )
        except ValueError as error:
            raise ValueError(f"robustness.attacks.kinds.{name}: {error}") from error

    def _shift(self, dataset: str, pairs: Mapping[str, str]) -> list[Cell]:
        other = self._other("shift", dataset, pairs)
        if other is None:
            return []
        own = self._config.dataset
        same = {"task": other.dataset.task == own.task, "num_classes": other.dataset.num_classes == own.num_classes}
        names = self._data.classes, other.data.classes
        same["classes"] = None in names or names[0] == names[1]
        for key, holds in same.items():
            if not holds:
                raise ValueError(
                    f"robustness.shift.dataset must have the {key} of {own.name}, got {other.dataset.name}"
                )
        return [_of(self._grid.shift(other.dataset.name, other.batches), other.sample)]

    def _ood(self, dataset: str, pairs: Mapping[str, str]) -> list[Cell]:
        other = self._other("ood", dataset, pairs)
        if other is None:
            return []
        return [_of(self._grid.foreign(other.dataset.name, other.batches), other.sample)]

    def _calibration(self, bins: int) -> list[Cell]:
        return [self._grid.calibration(self._batches(self._test, "val"), bins)]

    def _features(self, dataset: str, pairs: Mapping[str, str], train_samples: int, neighbours: int) -> list[Cell]:
        if self._config.dataset.task == "multilabel":
            self.notes.append("features left out: a probe is for one class a sample, and the task is multilabel")
            return []

        own, settings = self._data.student, {"neighbours": neighbours, "train_samples": train_samples}
        part = self._some("features train", self._data, own.splits.val, train_samples)
        fit = self._batches(_with_test(own, part), "test")
        cell = self._grid.features(self._config.dataset.name, fit, self._grid.batches, **settings)
        cells = [_of(cell, part)]
        other = self._other("features", dataset, pairs)
        if other is not None:
            name, module = other.dataset.name, other.data.student
            part = self._some(f"features {name} train", other.data, module.splits.train, train_samples)
            fit = _Batches(_with_test(module, part), "test", self._device, other.dataset, self._grid.shape)
            cell = self._grid.features(name, fit, other.batches, **settings)
            cells.append(_of(cell, part, other.sample))
        return cells

    def _some(self, name: str, data: assemble.Data, split: Split, count: int | None) -> "_Sample":
        """So many samples of a split; how many of each class stands in the report under the name."""
        sample = _Sample(split, stratified_sample(split.target, count, self._settings["seed"]))
        classes = data.samples_per_class(sample.part.target)
        self._sample_counts[name] = {"samples": len(sample.positions), "classes": classes}
        return sample

    def _applicable(self, axis: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
        """Those that are for these inputs, by name, from their settings; the others are noted."""
        applicable: dict[str, Any] = {}
        left_out: dict[str, list[str]] = {}
        for name, settings in kinds.items():
            try:
                kind = instantiate(settings, "perturbation")
            except ValueError as error:
                raise ValueError(f"robustness.{axis}.kinds.{name}: {error}") from error
            reason = kind.why_not(self._grid.shape)
            if reason is None:
                applicable[name] = kind
            else:
                left_out.setdefault(reason, []).append(name)
        self.notes += [f"{axis}: {', '.join(names)} left out: {reason}" for reason, names in left_out.items()]
        return applicable

    def _other(self, axis: str, dataset: str, pairs: Mapping[str, str]) -> "_Other | None":
        """Another data set; None where auto finds none."""
        own = self._config.dataset.name
        name = pairs.get(own) if dataset == "auto" else dataset
        if name is None or not self._is_image:
            self.notes.append(f"{axis} left out: no data set is paired with {own} (robustness.{axis}.dataset=NAME)")
            return None
        config = copy.deepcopy(self._config)
        config.dataset = dataset_option(name, config.data_dir)
        try:
            data = assemble.Data(config)
        except FileNotFoundError as error:
            if dataset != "auto":
                raise
            self.notes.append(f"{axis} left out: {error}")
            return None
        sample = self._some(f"{axis} {name}", data, data.student.splits.test, self._settings["samples"])
        module = _with_test(data.student, sample)
        batches = _Batches(module, "test", self._device, config.dataset, self._grid.shape)
        return _Other(config.dataset, data, sample, batches)

    def _batches(self, module: DataModule, split: Literal["val", "test"]) -> Batches:
        return _Batches(module, split, self._device, self._config.dataset, list(self._config.dataset.input_shape))

    # Measuring

    def report(self, subjects: Mapping[str, Subject], folder: Path) -> dict[str, Any]:
        """Measure what has not been measured yet, and write robustness.json, robustness.csv and the figures.

        Args:
            subjects: by role, see `kdexp.robustness.summary`.
            folder: where they are written.

        Returns:
            The content of robustness.json.
        """
        started = time.perf_counter()
        ordered = {role: subjects[role] for role in (TEACHER, CONTROL, STUDENT) if role in subjects}
        found = []
        for cell in _watched(self.cells):
            found.append((cell, self._measured(cell, ordered)))
        settings = self._settings
        summary = Summary(
            found,
            seed=settings["seed"],
            resamples=settings["resamples"],
            confidence=settings["confidence"],
            bins=settings.get("calibration", {}).get("bins", 15),
        )
        notes = [
            *self.notes,
            *(f"{cell.name}: {role}: {note}" for cell, one in found for role in one for note in one[role].notes),
        ]
        report = {
            "schema_version": SCHEMA_VERSION,
            "dataset": self._config.dataset.name,
            "samples": self._grid.samples,
            "sample_counts": self._sample_counts,
            "models": {role: {"digest": own.digest, "cells": str(own.folder)} for role, own in ordered.items()},
            "settings": settings,
            "notes": notes,
            "accuracy_under": summary.accuracy_under(),
            "measures": summary.measures(),
            "attack_checks": summary.attack_checks(),
            "reliability": summary.reliability(),
            "cells": summary.rows(),
            "seconds": time.perf_counter() - started,
        }
        write(report, folder)
        return report

    def _measured(self, cell: Cell, subjects: Mapping[str, Subject]) -> dict[str, Measured]:
        """What is known of a cell, and the rest measured and kept."""
        teacher = subjects.get(TEACHER)
        files = {}
        for role, own in subjects.items():
            guide = teacher.digest if teacher is not None and role != TEACHER else None
            files[role] = own.folder / f"{self._key(cell, own.digest, guide)}.safetensors"
        samples = self._grid.samples if cell.positions is None else len(cell.positions)
        known = {role: kept for role, file in files.items() if (kept := _read(file)) is not None}
        if cell.axis.startswith("attack"):
            # Keys made before there was `_of` did not tell how many samples had been attacked.
            known = {role: kept for role, kept in known.items() if len(kept.samples["right"]) == samples}
        unknown = [role for role in subjects if role not in known]
        if unknown:
            asked = [role for role in subjects if role in unknown or role == TEACHER]
            networks = Networks(
                {role: self._network(subjects[role].network) for role in asked},
                {role: TEACHER for role in asked if role != TEACHER and teacher is not None},
                {
                    role: self._network(represent)
                    for role in asked
                    if (represent := subjects[role].represent) is not None
                },
            )
            for role, one in cell.measure(networks).items():
                if role in unknown:
                    known[role] = one
                    try:
                        _keep(files[role], one)
                    except OSError as error:  # in a store, or beside a control, of somebody else's
                        note = f"{role}: its cells are not kept in {files[role].parent}: {error.strerror}"
                        self.notes += [note] if note not in self.notes else []
        return {role: known[role] for role in subjects}

    def _network(self, network: Network) -> Network:
        """In the space of the grid's inputs."""
        if not self._is_image:
            return network
        return Normalized(network, list(self._config.dataset.mean), list(self._config.dataset.std)).to(self._device)

    def _key(self, cell: Cell, digest: str, teacher: str | None) -> str:
        """Identifies what a measured cell depends on."""
        dataset = self._config.dataset
        return fingerprint(
            {
                "version": _CELLS_VERSION,
                "cell": [cell.axis, cell.name, cell.dose, cell.settings],
                "network": [digest, teacher],
                "data": {key: dataset[key] for key in ("name", "task", "mean", "std", "val_fraction", "split_seed")},
                "content": self._data.content,
                "samples": [self._settings["seed"], self._grid.samples],
                **quick.mark(self._config),
            }
        )


class _Batches:
    """A split's batches as `kdexp.robustness` wants them: images in [0, 1] of a certain shape, or features as they are.

    Args:
        module: the data.
        split: which part of them.
        device: where they are to be.
        dataset: their configuration.
        shape: of the images wanted; others are enlarged or reduced, and coloured or made grey.
    """

    def __init__(
        self,
        module: DataModule,
        split: Literal["val", "test"],
        device: torch.device,
        dataset: Any,
        shape: Sequence[int],
    ) -> None:
        self.module, self._split, self._device, self._shape = module, split, device, list(shape)
        self._is_image = len(shape) == 3
        self._mean, self._std = (
            torch.tensor(list(values), device=device).view(-1, 1, 1) for values in (dataset.mean, dataset.std)
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.module.eval_batches(self._split, self._device):
            yield replace(batch, inputs=self._images(batch.inputs)) if self._is_image else batch

    def _images(self, normalised: Tensor) -> Tensor:
        # Images are bytes before they are normalised: rounding gives back every bit.
        images = ((normalised * self._std + self._mean) * 255).round().clamp(0, 255) / 255
        channels, *size = self._shape
        if list(images.shape[2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        if images.shape[1] == channels:
            return images
        return images.expand(-1, channels, -1, -1) if images.shape[1] == 1 else images.mean(1, keepdim=True)


@dataclass(frozen=True)
class _Sample:
    """Samples of a split: all, or a random part that is stratified by class.

    Attributes:
        split: the whole.
        positions: (n,) int64, which of its samples, ascending.
    """

    split: Split
    positions: Tensor

    @property
    def part(self) -> Split:
        target, index = self.split.target[self.positions], self.split.index[self.positions]
        return replace(self.split, target=target, index=index)

    @property
    def digests(self) -> list[str]:
        """One that tells this part from others; none for the whole."""
        is_whole = len(self.positions) == len(self.split)
        return [] if is_whole else [hashlib.sha256(self.positions.numpy().tobytes()).hexdigest()]


@dataclass(frozen=True)
class _Other:
    """Another data set than that of the run: its configuration, and samples of its test split."""

    dataset: Any
    data: assemble.Data
    sample: _Sample
    batches: _Batches


def _of(cell: Cell, *samples: _Sample) -> Cell:
    """The cell as one of these samples too, which its key depends on where they are not a whole split."""
    digests = [digest for sample in samples for digest in sample.digests]
    chosen = [*cell.settings.get("chosen", ()), *digests]
    return replace(cell, settings={**cell.settings, "chosen": chosen}) if chosen else cell


def _with_test(module: DataModule, sample: _Sample) -> DataModule:
    """The same data with these samples for a test split."""
    changed = copy.copy(module)
    changed.splits = replace(module.splits, test=sample.part)
    return changed


def _keep(file: Path, measured: Measured) -> None:
    said = {"values": json.dumps(dict(measured.values)), "notes": json.dumps(list(measured.notes))}
    with atomic_path(file) as temporary:
        save_file({name: values.cpu().contiguous() for name, values in measured.samples.items()}, temporary, said)


def _read(file: Path) -> Measured | None:
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


def write_together(together: Mapping[str, Any], folder: Path) -> None:
    """A sweep's robustness.json: see `kdexp.report.robustness.over_seeds`."""
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **together}, indent=2) + "\n")


def write(report: Mapping[str, Any], folder: Path) -> None:
    """robustness.json, the cells as robustness.csv, and the figures, each of them whole or not at all."""
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    names = list(dict.fromkeys(name for row in report["cells"] for name in row))
    with atomic_path(folder / "robustness.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(report["cells"])
    figures.corruptions(report, folder / "figures" / "robustness_corruptions.png")
    figures.levels(report, folder / "figures" / "robustness_doses.png")
    figures.reliability(report, folder / "figures" / "reliability.png")
