"""results.json: what a run was, how it ended and what came out; the one source for every comparison."""

import fcntl
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from kdexp import signals
from kdexp.atomic import atomic_path, read_json
from kdexp.config.renamed import upgrade_override
from kdexp.config.schema import with_defaults
from kdexp.config.typed import complete
from kdexp.config.untrusted import inside

SCHEMA_VERSION = 2
FILE = "results.json"
LOG = "train.log"
WEIGHTS = "student.safetensors"
SUPERSEDED = "superseded"
ROBUSTNESS = "robustness.json"
PRIOR_RUNS, OLDER_PRIOR_RUNS = "prior_runs", "steps"  # a key of results.json, and folders
STATUSES = ("running", "completed", "pruned", "failed", "oom", "diverged", "interrupted", "killed")
"""In the file ``running`` stays behind when a process dies without a chance to say so; `read` calls that ``killed``."""
Record: TypeAlias = Mapping[str, Any]
"""What a JSON file holds, or a part of it: a results.json, a robustness.json, a job in a sweep's index."""
Results: TypeAlias = dict[str, Any]
"""What results.json will hold, while a run adds to it."""
_LINE_BREAK = re.compile(r"\n\s*")
LOCK = ".lock"


@dataclass
class _Curves:
    """See `kdexp.metrics`: the points are those of `fpr`, the names ``macro`` and the numbers of classes."""

    fpr: list[float] = field(default_factory=list)
    roc: dict[str, list[float]] = field(default_factory=dict)
    auc: dict[str, float] = field(default_factory=dict)
    confusion: list[list[float]] = field(default_factory=list)


@dataclass
class _Model:
    parameters: int = 0
    macs: int = 0
    bytes: int = 0


@dataclass
class _Teacher:
    val: dict[str, float | None]
    test: dict[str, float | None]
    curves: _Curves = field(default_factory=_Curves)
    model: _Model = field(default_factory=_Model)


@dataclass
class _Cost:
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Epochs:
    best: int | None = None
    last: int | None = None
    planned: int | None = None


@dataclass
class _Version:
    schema_version: int


@dataclass
class _Content:
    """What every reader of the file takes for granted, whoever wrote it."""

    status: str
    config: dict[str, Any]
    overrides: list[str]
    seed: int
    is_control: bool
    control_fingerprint: str
    choices: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    measure: str = "acc"  # what runs are compared by: a metric of the task
    epochs: _Epochs = field(default_factory=_Epochs)
    samples: dict[str, int] = field(default_factory=dict)
    samples_of_group: dict[str, int] = field(default_factory=dict)  # of test
    model: _Model = field(default_factory=_Model)
    cost: _Cost = field(default_factory=_Cost)
    curves: _Curves = field(default_factory=_Curves)
    tracking: dict[str, str | None] = field(default_factory=dict)
    prior_runs: list[str] = field(default_factory=list)
    control_agreement: dict[str, float] = field(default_factory=dict)
    wandb_id: str = "none"
    error: str = ""


def is_in_use(folder: Path) -> bool:
    """Whether a process runs in a run folder now."""
    try:
        # Somebody else's runs can be looked at, too; a pipe of that name is not waited for.
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # there is none, or it is not one that kdexp made
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def has_other_data(run: Record, digest: str | None) -> bool:
    """Whether a run is known to have had other data than those of a digest, whatever its settings say."""
    return None not in (known := run.get("data_content"), digest) and known != digest


def status_of(error: BaseException) -> str:
    """How a run ended that ended with this exception."""
    if signals.interruption(error) is not None:
        return "interrupted"
    # By name: this module stays importable without torch, for programs that only read results.
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error):
        return "oom"
    return str(getattr(error, "status", "failed"))


def argument(key: str, folder: Path) -> str:
    """``KEY=FOLDER`` as it is to be typed: quoted for Hydra and for the shell where the path needs it."""
    path = str(folder)
    return f"{key}={path}" if re.fullmatch(r"[\w./-]+", path) else shlex.quote(f"{key}='{path}'")


def write(folder: Path, results: Record) -> None:
    """Write results.json, atomically."""
    text = json.dumps(results, indent=2, default=str)
    # A list of numbers or words (a curve, a row of a matrix) is one line. A line break is never part of a JSON string.
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: f"[{_LINE_BREAK.sub(' ', found[1])}]", text)
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(text + "\n")


def read(folder: Path, setting: str) -> Record:
    """Read the results of a run. A run that says ``running`` while no process runs in its folder was ``killed``.

    Args:
        folder: the run folder.
        setting: the setting that named the folder, for messages.

    Raises:
        ValueError: the folder does not hold a run, or one of a later kdexp.
    """
    path = inside(folder, FILE)
    if not os.path.lexists(path):
        raise ValueError(f"{setting} must be the folder of a run (with {FILE} in it), got {folder}")
    results = _read(path, setting)
    if results["status"] == "running" and not is_in_use(folder):
        # Looked at in this order, a run that ended in between would seem to have been killed.
        results = _read(path, setting)
        if results["status"] == "running":
            return {**results, "status": "killed", "error": "killed without a chance to say why"}
    return results


def read_or_nothing(folder: Path) -> Record:
    """The results of a job of a sweep; nothing where there are none, or the file is damaged.

    Args:
        folder: its run folder.
    """
    try:
        return read(folder, "sweep")
    except ValueError:
        return {}


def _read(path: Path, setting: str) -> Record:
    try:
        results = read_json(path)
    except ValueError as error:
        raise ValueError(f"{setting} must hold a readable {FILE}, got {path}: {error}") from error
    try:
        return _complete(results)
    except ValueError as error:
        raise ValueError(f"{setting} must hold the {FILE} of a run, got {path}: {error}") from error


def _upgrade(results: Record) -> Record:
    """The content of a results.json under the keys of today.

    Raises:
        ValueError: it is a later kdexp's, or has no version.
    """
    version = complete(results, _Version, "")["schema_version"]
    if version == 1:
        names = {OLDER_PRIOR_RUNS: PRIOR_RUNS}
        return {names.get(key, key): value for key, value in results.items()} | {"schema_version": SCHEMA_VERSION}
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version must be at most {SCHEMA_VERSION}, got {version}")
    return results


def _complete(results: Record) -> Record:
    results = _upgrade(results)
    content = complete(results, _Content, "")
    if content["status"] not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {content['status']!r:.50}")
    for name in ("wandb_id", "measure"):
        if not re.fullmatch(r"\w+", content[name]):
            raise ValueError(f"{name} must be letters and digits, got {content[name]!r:.50}")
    config = with_defaults(results["config"])
    measured = {"curves": content["curves"]}
    if results.get("teacher"):  # null without one
        teacher = complete(results["teacher"], _Teacher, "teacher")
        for split in ("val", "test"):
            if teacher[split].get(content["measure"]) is None:
                raise ValueError(f"teacher.{split}.{content['measure']} must be given, got nothing")
        measured["teacher.curves"] = teacher["curves"]
    for name, curves in measured.items():
        _check_curves(curves, config["dataset"]["num_classes"], name)
    return {**results, "config": config, "overrides": [upgrade_override(text) for text in content["overrides"]]}


def _check_curves(curves: Record, classes: int, name: str) -> None:
    known = {"macro", *map(str, range(classes))}
    points, areas, counts = curves["fpr"], curves["auc"], curves["confusion"]
    for number, rates in curves["roc"].items():
        if number not in known & areas.keys() or len(rates) != len(points):
            raise ValueError(f"{name}.roc must have a class's {len(points)} rates and their auc, got {number!r:.50}")
    if counts and {len(counts), *map(len, counts)} != {classes}:
        raise ValueError(f"{name}.confusion must have {classes} rows and columns")
