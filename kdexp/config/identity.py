"""What a run is known by: fingerprints of what it computes, and the code's version."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdexp.config import trust
from kdexp.config.renamed import before
from kdexp.config.require import Values


def fingerprint(content: object) -> str:
    """First 16 hex digits of the SHA-256 of the content's canonical JSON."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Settings that say where and how a run is executed or watched, not what it computes.
RUN_ONLY = (
    "tracking",
    "robustness",
    "loss_statement",
    "budget",
    "data_dir",
    "store_dir",
    "output_dir",
    "resume",
    "rerun",
    "sweep_name",
    "sweep_dir",
    "choices",
)
# Settings that a student trained alone does not feel; alpha is 1 then.
DISTILLATION_ONLY = (
    "alpha_schedule",
    "temperature",
    "temperature_schedule",
    "teacher",
    "loss",
    "feature_loss",
    "scheme",
)


_OF_PROBLEM = ("student", "dataset", "task", "distillation", "experiment")
_OF_BATCHES = ("dataset.batch_size", "dataset.class_sampling", "dataset.drop_last")


def is_for_controls(name: str) -> bool:
    """Whether a setting has a part in what a control computes, who takes nothing of its teacher, its loss, ..."""
    return name.split(".")[0] not in ("alpha", *DISTILLATION_ONLY)


def is_of_recipe(name: str) -> bool:
    """Whether a setting is part of how a student is trained, alone or taught: what a control is searched over, too.

    What it shares with the student that it is the control of is none: network, data and task; nor are presets.
    """
    return name in _OF_BATCHES or (is_for_controls(name) and name.split(".")[0] not in _OF_PROBLEM)


INIT_FROM_TEACHER = "init_from_teacher"
"""The one setting of the student that it does not feel, either."""

_NAMED_BY_DATA = "classes_from_data"  # a mark in the configuration of results.json, no setting


@dataclass(frozen=True)
class Identity:
    """What a run is known by.

    Attributes:
        values: its configuration; for all but `is_control` and `is_attacked` as `plain` gives it.
    """

    values: Values

    @property
    def is_control(self) -> bool:
        """Whether the student is trained alone: alpha is 1 to the end, no representation is compared, nothing attacks.

        A scheme without a teacher (``scheme.teacher=none``) is none: it is another training of the student alone.
        """
        schedule = self.values["alpha_schedule"]
        always = self.values["alpha"] == 1 and (schedule["kind"] == "constant" or schedule["final"] == 1)
        return bool(always and not self.values["feature_loss"] and self.values["scheme"].get("teacher") != "none")

    @property
    def is_attacked(self) -> bool:
        """Whether the student is trained on adversarial examples."""
        return not self.is_control and has_attack(self.values["scheme"])

    @cached_property
    def fingerprint(self) -> str:
        """Identifies what the run computes.

        A control's is `control_fingerprint`: at ``alpha == 1`` the same run comes out at every temperature.
        """
        return self.control_fingerprint if self.is_control else self._fingerprint_without(RUN_ONLY)

    @property
    def control_fingerprint(self) -> str:
        """Identifies the run's control: the same student, data, recipe and seed, without a teacher.

        A run and its control have the same value; the control is the one with ``alpha == 1``.
        """
        student = {key: value for key, value in self.values["student"].items() if key != INIT_FROM_TEACHER}
        alone = replace(self, values={**self.values, "student": student})
        return alone._fingerprint_without((*RUN_ONLY, *DISTILLATION_ONLY, "alpha"))

    @property
    def key(self) -> str:
        """Identifies the run's outcome: what it computes, and the code that computes it."""
        return fingerprint([self.fingerprint, code_version()])

    def _fingerprint_without(self, ignored: Sequence[str]) -> str:
        content = {key: value for key, value in as_typed(before(self.values)).items() if key not in ignored}
        if not content.get("quick"):  # fingerprints of runs before there was such a setting have none
            content.pop("quick", None)
        content["dataset"] = _without_folder(content["dataset"])
        source = (content.get("scheme") or {}).get("source") or {}
        # Not left out as above: fingerprints of earlier runs have it as false.
        if source.get("source", {}).get("download"):
            source = {**source, "source": {**source["source"], "download": False}}
            content["scheme"] = {**content["scheme"], "source": source}
        return fingerprint(content)


def without_run_only(values: Values) -> dict[str, Any]:
    """The settings that say what is computed, by the keys that they have in older files, too."""
    return before({key: value for key, value in values.items() if key not in RUN_ONLY})


def with_class_names(dataset: Values, names: Sequence[str]) -> Values:
    """conf/dataset for results.json when its ``classes`` is null and the data have names of their own."""
    return {**dataset, "classes": list(names), _NAMED_BY_DATA: True}


def as_typed(values: Values) -> Values:
    """A configuration without what `with_class_names` added: it is no setting, and has no part in a fingerprint."""
    dataset = values.get("dataset", {})
    if _NAMED_BY_DATA not in dataset:
        return values
    settings = {key: value for key, value in dataset.items() if key != _NAMED_BY_DATA}
    return {**values, "dataset": settings | {"classes": None}}


@cache
def code_version() -> str:
    """Version of kdexp and a digest of its source and that of the packages in KDEXP_TRUST."""
    digest = hashlib.sha256(own_source())
    for package in sorted({name.split(".")[0] for name in trust.packages()}):
        digest.update(_digest(package))
    return f"{version('kdexp')}+{digest.hexdigest()[:8]}"


@cache
def own_source() -> bytes:
    """Digest of kdexp's source, as it was when this was called first: see `kdexp.sweeps.preload`."""
    return _digest("kdexp")


def _digest(package: str) -> bytes:
    digest = hashlib.sha256()
    for path in _sources(package):
        digest.update(f"{package}/{path.name}".encode() + path.read_bytes())
    return digest.digest()


def _sources(package: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.has_location and spec.origin else []
    return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py"))


def _without_folder(dataset: Values) -> Values:
    source = {key: value for key, value in dataset["source"].items() if key not in ("data_dir", "download")}
    return {**dataset, "source": source}


def has_attack(scheme: Values | None) -> bool:
    """Whether a scheme, the run's or that of a teacher's recipe, trains on adversarial examples."""
    return "attack" in (scheme or {})
