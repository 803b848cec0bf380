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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdexp import signals
from kdexp.atomic import atomic_path, read_json, remove_staged, sha256
from kdexp.foreign import inside, without_password

SCHEMA_VERSION = 1
FILE = "results.json"
LOG = "train.log"
WEIGHTS = "student.safetensors"
SUPERSEDED = "superseded"
STATUSES = ("running", "completed", "pruned", "failed", "oom", "diverged", "interrupted", "killed")
"""In the file ``running`` stays behind when a process dies without a chance to say so; `read` calls that ``killed``."""

_LINE_BREAK = re.compile(r"\n\s*")
_LOCK = ".lock"
_ROOM = ".room"
_ROOM_BYTES = 2**18  # some times what a run's results.json has
_LOCK_SECONDS = 5.0  # long enough for whoever looks at the lock, or takes a last note, to let it go again

_FACTS: dict[str, type] = {
    "schema_version": int,
    "status": str,
    "config": dict,
    "overrides": list,
    "seed": int,
    "is_control": bool,
    "control_fingerprint": str,
}
_MORE = dict.fromkeys(("choices", "metrics", "epochs", "samples", "model", "cost", "tracking"), dict)


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
    if not _is_of_run(results):
        raise ValueError(f"{setting} must hold the {FILE} of a run, got {path}")
    if not re.fullmatch(r"\w+", str(results.get("wandb_id", "none"))):
        raise ValueError(f"{setting} must hold a wandb_id of letters and digits, got {results['wandb_id']!r} in {path}")
    found = results["schema_version"]
    if found != SCHEMA_VERSION:
        raise ValueError(f"{setting} must hold a {FILE} of schema version {SCHEMA_VERSION}, got {found} in {path}")
    return dict(results)


def _is_of_run(results: Any) -> bool:
    """Whether a file has what every reader takes for granted, whoever wrote it."""
    if not isinstance(results, dict) or not all(isinstance(results.get(key), kind) for key, kind in _FACTS.items()):
        return False
    if not all(isinstance(results.get(key, {}), kind) for key, kind in _MORE.items()):
        return False
    if results["status"] not in STATUSES or not all(isinstance(word, str) for word in results["overrides"]):
        return False
    measured: list[Any] = [results.get("metrics", {})] if results["status"] == "completed" else []
    for _ in ("splits", "epochs"):
        if not all(isinstance(level, dict) for level in measured):
            return False
        measured = [value for level in measured for value in level.values()]
    return all(isinstance(level, dict) and all(map(_is_number, level.values())) for level in measured)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _versions() -> dict[str, str]:
    packages = ("kdexp", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
