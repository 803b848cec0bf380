"""results.json: what a run was, how it ended and what came out; the one source for every comparison."""

import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import stat
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdexp import signals
from kdexp.atomic import atomic_path, read_json, remove_staged, sha256
from kdexp.config import with_defaults
from kdexp.foreign import inside, without_password
from kdexp.typed import complete

SCHEMA_VERSION = 1
FILE = "results.json"
LOG = "train.log"
WEIGHTS = "student.safetensors"
SUPERSEDED = "superseded"
STATUSES = ("running", "completed", "pruned", "failed", "oom", "diverged", "interrupted", "killed")
"""In the file ``running`` stays behind when a process dies without a chance to say so; `read` calls that ``killed``."""

_TAIL_LINES = 20  # of a log, that are shown of a run that is not completed
_LINE_BREAK = re.compile(r"\n\s*")
_LOCK = ".lock"
_ROOM = ".room"
_ROOM_BYTES = 2**18  # some times what a run's results.json has
_LOCK_SECONDS = 5.0  # long enough for whoever looks at the lock, or takes a last note, to let it go again


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
    epochs: _Epochs = field(default_factory=_Epochs)
    samples: dict[str, int] = field(default_factory=dict)
    model: _Model = field(default_factory=_Model)
    cost: _Cost = field(default_factory=_Cost)
    curves: _Curves = field(default_factory=_Curves)
    tracking: dict[str, str | None] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    wandb_id: str = "none"
    error: str = ""


@contextmanager
def recording(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep results.json true while a run lasts.

    Args:
        folder: the run folder.
        facts: what is known before: configuration, fingerprints, names.

    Yields:
        The results so far, to be added to. They are written when the block begins, and when it ends, however it ends.

    Raises:
        ValueError: another process runs in the folder.
    """
    results: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        **facts,
        "versions": _versions(),
        "started": _now(),
    }
    with alone(folder):
        remove_staged(folder)
        write(folder, results)
        _running.add(folder)
        try:
            # Random bytes: not even a file system that compresses saves their room.
            (folder / _ROOM).write_bytes(os.urandom(_ROOM_BYTES))
            yield results
            _end(folder, results, "completed")
        except BaseException as error:
            with suppress(OSError):  # a full disk, most likely: the earlier error is the one to report
                _end(folder, results, status_of(error), error=_reason(error))
            raise
        finally:
            _running.discard(folder)


_running: set[Path] = set()
"""Of this process: the folders of runs that have not said how they ended."""

_ending = threading.Lock()


def _end(folder: Path, results: dict[str, Any], status: str, **more: str) -> None:
    results |= {"status": status, **more, "ended": _now()}
    with _ending:
        _write_last(folder, results)


def _write_last(folder: Path, results: Mapping[str, Any]) -> None:
    """Write how a run ended; on a full disk into the room that was kept for it."""
    (folder / _ROOM).unlink(missing_ok=True)
    write(folder, results)


def last_word(status: str, error: str) -> None:
    """Say how the runs of this process end, from another thread than theirs, just before the process is ended.

    Args:
        status: one of `STATUSES`.
        error: why.
    """
    if _ending.acquire(timeout=1):  # else the main thread is at it
        for folder in _running:
            with suppress(OSError, ValueError):
                _note(folder, status, error)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let no other process run in a folder meanwhile; may be nested. The system ends it when the process dies.

    Raises:
        ValueError: another process runs in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise ValueError(f"output_dir must not be in use by another run, got {folder}") from None
    try:
        yield
    finally:
        lock.release()


def is_in_use(folder: Path) -> bool:
    """Whether a process runs in a run folder now."""
    try:
        # Somebody else's runs can be looked at, too; a pipe of that name is not waited for.
        lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # there is none, or it is not one that kdexp made
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def note_death(folder: Path, status: str, error: str) -> None:
    """Say how a run ended that could not say so itself; nothing when it did, or when it was taken up again."""
    with suppress(ValueError), alone(folder):
        if (folder / FILE).is_file():
            _note(folder, status, error)


def _note(folder: Path, status: str, error: str) -> None:
    results = read_json(folder / FILE)
    if results.get("status") == "running":
        _write_last(folder, results | {"status": status, "error": error, "ended": _now()})


def has_other_data(run: Mapping[str, Any], digest: str | None) -> bool:
    """Whether a run is known to have had other data than those of a digest, whatever its settings say."""
    return None not in (known := run.get("data_content"), digest) and known != digest


def set_aside(folder: Path) -> None:
    """Move what a run left to `SUPERSEDED` beside it, so that another one can take its folder; nothing is deleted.

    results.json goes last: a move that is cut short is completed by the next one, to the same place. Without a readable
    one each goes to a place of its own.

    Raises:
        ValueError: a process runs in the folder.
    """
    with alone(folder):
        run = _content(folder)
        place = inside(folder.parent / SUPERSEDED, f"{folder.name}-{run.get('wandb_id') or os.urandom(4).hex()}")
        place.mkdir(parents=True, exist_ok=True)
        for kept in (folder / ".hydra", folder / LOG):  # they belong to whoever opened the folder, too
            if kept.is_dir():
                shutil.copytree(kept, place / kept.name, dirs_exist_ok=True)
            elif kept.is_file():
                shutil.copy2(kept, place)
        restore_hydra(place, run)
        for path in folder.iterdir():
            if path.name not in (".hydra", LOG, _LOCK, _ROOM, FILE):
                path.rename(place / path.name)
        (folder / _ROOM).unlink(missing_ok=True)
        if (folder / FILE).exists():
            (folder / FILE).rename(place / FILE)


def restore_hydra(folder: Path, run: Mapping[str, Any]) -> None:
    """Say in ``.hydra`` what a run's settings were: Hydra has written those of whoever opened the folder.

    Args:
        folder: of the run.
        run: the content of its results.json.
    """
    for name in ("config", "overrides") if run.get("config") else ():
        path = folder / ".hydra" / f"{name}.yaml"
        if path.is_file():
            path.write_text(json.dumps(run[name], indent=2, default=str) + "\n")  # which is YAML, too


def remove_unbegun(folder: Path) -> bool:
    """Remove the folder of a run that was refused before it made anything, and those of here to it that are empty then.

    Args:
        folder: the run folder, which held no run before.

    Returns:
        Whether it was removed; False when there is anything in it but what every run begins with.
    """
    here = Path().absolute()
    begun = any(path.name not in (FILE, LOG, ".hydra", _LOCK, _ROOM) for path in folder.iterdir())
    if begun or here.is_relative_to(folder):
        return False
    shutil.rmtree(folder)
    with suppress(OSError):  # the first that is not empty
        for above in folder.parents:
            if here not in above.parents:
                break
            above.rmdir()
    return True


def holds_run(folder: Path) -> bool:
    """Whether there is anything in a folder that another run would take for its own, or write over."""
    return any((folder / name).exists() for name in (FILE, WEIGHTS, "checkpoints", "steps"))


def verified(weights: Path, setting: str) -> Path:
    """The same path, of a file of weights that is not `is_altered`; it may be missing.

    Args:
        weights: the file.
        setting: the setting that named it, for the message.

    Raises:
        ValueError: it is.
    """
    if weights.is_file() and is_altered(weights):
        raise ValueError(f"{setting}: corrupt file {weights}: its SHA-256 is not the one in {FILE}")
    return weights


def is_altered(weights: Path) -> bool:
    """Whether a run's exported student is missing, or not the one that results.json beside it tells of.

    False where no results.json says: of a file of another origin, or of an older kdexp.
    """
    model = _content(weights.parent).get("model")
    expected = model.get("sha256") if isinstance(model, dict) else None
    if expected is None:
        return False
    return weights.name == WEIGHTS and not (weights.is_file() and sha256(weights) == expected)


def _content(folder: Path) -> dict[str, Any]:
    """Of results.json; nothing where it is missing or cannot be read."""
    with suppress(ValueError):
        found = read_json(folder / FILE)
        return found if isinstance(found, dict) else {}
    return {}


def copy(folder: Path, target: Path) -> None:
    """Copy what a complete run left, but checkpoints and the tracker's files; the target is replaced at one stroke."""
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    ignored = shutil.ignore_patterns("checkpoints", "wandb", _LOCK, _ROOM)
    shutil.copytree(folder, temporary, ignore=ignored, copy_function=shutil.copyfile)
    for place, _, _ in os.walk(temporary):
        os.chmod(place, os.stat(place).st_mode | stat.S_IRWXU)  # in a store of somebody else's they may be read-only
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def status_of(error: BaseException) -> str:
    """How a run ended that ended with this exception."""
    if signals.interruption(error) is not None:
        return "interrupted"
    # By name: this module stays importable without torch, for programs that only read results.
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error):
        return "oom"
    return str(getattr(error, "status", "failed"))


def _reason(error: BaseException) -> str:
    code = signals.interruption(error)
    return without_password(f"{type(error).__name__}: {error}") if code is None else signals.reason(code)


def argument(key: str, folder: Path) -> str:
    """``KEY=FOLDER`` as it is to be typed: quoted for Hydra and for the shell where the path needs it."""
    path = str(folder)
    return f"{key}={path}" if re.fullmatch(r"[\w./-]+", path) else shlex.quote(f"{key}='{path}'")


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, atomically."""
    text = json.dumps(results, indent=2, default=str)
    # A list of numbers or words (a curve, a row of a matrix) is one line. A line break is never part of a JSON string.
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: f"[{_LINE_BREAK.sub(' ', found[1])}]", text)
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(text + "\n")


def read(folder: Path, setting: str) -> dict[str, Any]:
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
            results |= {"status": "killed", "error": "killed without a chance to say why"}
    return results


def _read(path: Path, setting: str) -> dict[str, Any]:
    try:
        results = read_json(path)
    except ValueError as error:
        raise ValueError(f"{setting} must hold a readable {FILE}, got {path}: {error}") from error
    try:
        return _complete(results)
    except ValueError as error:
        raise ValueError(f"{setting} must hold the {FILE} of a run, got {path}: {error}") from error


def _complete(results: Any) -> dict[str, Any]:
    complete(results, _Version, "")
    if results["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {results['schema_version']}")
    content = complete(results, _Content, "")
    if content["status"] not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {content['status']!r:.50}")
    if not re.fullmatch(r"\w+", content["wandb_id"]):
        raise ValueError(f"wandb_id must be letters and digits, got {content['wandb_id']!r:.50}")
    config = with_defaults(results["config"])
    measured = {"curves": content["curves"]}
    if results.get("teacher"):  # null without one
        teacher = complete(results["teacher"], _Teacher, "teacher")
        for split in ("val", "test"):
            if teacher[split].get("acc") is None:
                raise ValueError(f"teacher.{split}.acc must be given, got nothing")
        measured["teacher.curves"] = teacher["curves"]
    for name, curves in measured.items():
        _check_curves(curves, config["dataset"]["num_classes"], name)
    return {**results, "config": config}


def _check_curves(curves: Mapping[str, Any], classes: int, name: str) -> None:
    known = {"macro", *map(str, range(classes))}
    points, areas, counts = curves["fpr"], curves["auc"], curves["confusion"]
    for number, rates in curves["roc"].items():
        if number not in known & areas.keys() or len(rates) != len(points):
            raise ValueError(f"{name}.roc must have a class's {len(points)} rates and their auc, got {number!r:.50}")
    if counts and {len(counts), *map(len, counts)} != {classes}:
        raise ValueError(f"{name}.confusion must have {classes} rows and columns")


def _versions() -> dict[str, str]:
    packages = ("kdexp", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def log_tail(folder: Path) -> tuple[str, ...]:
    """The last lines of the log in a run folder; none when there is none, or it is a link to somewhere else."""
    try:
        with inside(folder, LOG).open(errors="replace") as file:
            return tuple(line.rstrip("\n") for line in deque(file, _TAIL_LINES))
    except (OSError, ValueError):
        return ()
