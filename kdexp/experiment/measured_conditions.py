"""What is measured of networks under the conditions of a robustness report: each once, and kept as a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdexp.atomic import atomic_path
from kdexp.config import quick
from kdexp.config.identity import fingerprint
from kdexp.config.renamed import before, without_added
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.robustness_inputs import TestBed
from kdexp.robustness import renamed
from kdexp.robustness.attacks import Network, Normalized
from kdexp.robustness.grid import Condition, Measured, Networks
from kdexp.robustness.settings import TEACHER

# A part of what identifies a measured condition: another number when the same condition would give other values.
_CONDITIONS_VERSION = 1
_OF_DATA = ("name", "kind", "mean", "std", "val_fraction", "split_seed")


def keep_condition(file: Path, measured: Measured) -> None:
    """Write what was measured of one network in one condition, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    said = {
        "schema_version": "2",
        "values": json.dumps(dict(measured.values)),
        "notes": json.dumps(list(measured.notes)),
    }
    with atomic_path(file) as temporary:
        save_file({name: values.cpu().contiguous() for name, values in measured.samples.items()}, temporary, said)


def read_condition(file: Path) -> Measured | None:
    """What was measured in a condition before; None when that is nowhere, or damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            said = stored.metadata()
            samples = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        values, notes = json.loads(said["values"]), json.loads(said["notes"])
        if "schema_version" not in said:  # of an older kdexp
            values, samples = renamed.upgrade(values), renamed.upgrade(samples)
        return Measured(values, samples, notes)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


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


class Measurements:
    """What is measured of networks under the conditions of a run's test data.

    Args:
        experiment: the run's.
        bed: its data; what a reader of the report must know is added to its notes.
        device: where the networks are.
    """

    def __init__(self, experiment: Experiment, bed: TestBed, device: torch.device) -> None:
        self._data, self._dataset, self._is_quick = experiment.data, experiment.config.dataset, experiment.config.quick
        self._bed, self._device, self._task = bed, device, experiment.values["task"]

    def of(self, condition: Condition, subjects: Mapping[str, Subject]) -> dict[str, Measured]:
        """What is known of a condition, and the rest, which is measured and kept.

        Args:
            condition: of the run.
            subjects: by role, the teacher first.
        """
        teacher = subjects.get(TEACHER)
        files = {}
        for role, own in subjects.items():
            guide = teacher.digest if teacher is not None and role != TEACHER else None
            files[role] = own.folder / f"{self.key(condition, own.digest, guide)}.safetensors"
        known = {role: kept for role, file in files.items() if (kept := read_condition(file)) is not None}
        if condition.positions is not None:
            # Keys of an older kdexp did not tell on how many samples a condition had been measured.
            n = len(condition.positions)
            record = self._bed.grid.task.record
            known = {role: kept for role, kept in known.items() if len(kept.samples[record]) == n}
        unknown = [role for role in subjects if role not in known]
        if unknown:
            needed = {role: own for role, own in subjects.items() if role in unknown or role == TEACHER}
            for role, one in condition.measure(self._networks(needed)).items():
                if role in unknown:
                    known[role] = one
                    self._keep(role, files[role], one)
        return {role: known[role] for role in subjects}

    def _networks(self, subjects: Mapping[str, Subject]) -> Networks:
        return Networks(
            {role: self._network(own.network) for role, own in subjects.items()},
            {role: TEACHER for role in subjects if role != TEACHER and TEACHER in subjects},
            {role: self._network(own.represent) for role, own in subjects.items() if own.represent is not None},
        )

    def _network(self, network: Network) -> Network:
        """In the space of the grid's inputs."""
        if not self._bed.grid.is_image:
            return network
        return Normalized(network, list(self._dataset.mean), list(self._dataset.std)).to(self._device)

    def _keep(self, role: str, file: Path, measured: Measured) -> None:
        try:
            keep_condition(file, measured)
        except OSError as error:  # in a store, or beside a control, of somebody else's
            note = f"{role}: what was measured is not kept in {file.parent}: {error.strerror}"
            self._bed.notes += [note] if note not in self._bed.notes else []

    def key(self, condition: Condition, digest: str, teacher: str | None) -> str:
        """Identifies what a measured condition depends on.

        Args:
            condition: of the run.
            digest: of the network's weights.
            teacher: of its teacher's; None: it has none.
        """
        dataset, grid = self._dataset, self._bed.grid
        return fingerprint(
            {
                "version": _CONDITIONS_VERSION,
                "cell": condition.identity,
                "network": [digest, teacher],
                "data": before({"dataset": {key: dataset[key] for key in _OF_DATA}})["dataset"],
                "content": self._data.content,
                "samples": [grid.seed, grid.samples],
                **without_added({"task": self._task}),
                **quick.mark(self._is_quick),
            }
        )
