"""A run's folder: who uses it, what it holds, setting it aside."""

import json
import os
import shutil
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kdexp.atomic import read_json, sha256
from kdexp.config.untrusted import inside
from kdexp.results import FILE, LOCK, LOG, OLDER_PRIOR_RUNS, PRIOR_RUNS, SUPERSEDED, WEIGHTS, Record

_TAIL_LINES = 20  # of a log, that are shown of a run that is not completed
ROOM = ".room"
_LOCK_SECONDS = 5.0  # long enough for whoever looks at the lock, or takes a last note, to let it go again


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let no other process run in a folder meanwhile; may be nested. The system ends it when the process dies.

    Raises:
        ValueError: another process runs in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise ValueError(f"output_dir must not be in use by another run, got {folder}") from None
    try:
        yield
    finally:
        lock.release()


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
            if path.name not in (".hydra", LOG, LOCK, ROOM, FILE):
                path.rename(place / path.name)
        (folder / ROOM).unlink(missing_ok=True)
        if (folder / FILE).exists():
            (folder / FILE).rename(place / FILE)


def restore_hydra(folder: Path, run: Record) -> None:
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
    begun = any(path.name not in (FILE, LOG, ".hydra", LOCK, ROOM) for path in folder.iterdir())
    if begun or Path().absolute().is_relative_to(folder):
        return False
    remove(folder)
    return True


def remove(folder: Path) -> None:
    """Remove a folder that this process has made, and those of here to it that are empty then."""
    here = Path().absolute()
    shutil.rmtree(folder)
    with suppress(OSError):  # the first that is not empty
        for above in folder.absolute().parents:
            if here not in above.parents:
                break
            above.rmdir()


def holds_run(folder: Path) -> bool:
    """Whether there is anything in a folder that another run would take for its own, or write over."""
    return any((folder / name).exists() for name in (FILE, WEIGHTS, "checkpoints", PRIOR_RUNS, OLDER_PRIOR_RUNS))


def prior_runs(folder: Path) -> Path:
    """The folder of the runs before a run; one of an older kdexp has it under its older name."""
    older = folder / OLDER_PRIOR_RUNS
    return older if older.is_dir() else folder / PRIOR_RUNS


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


def _content(folder: Path) -> Record:
    """Of results.json; nothing where it is missing or cannot be read."""
    with suppress(ValueError):
        found = read_json(folder / FILE)
        return found if isinstance(found, dict) else {}
    return {}


def copy(folder: Path, target: Path) -> None:
    """Copy what a complete run left, but checkpoints and the tracker's files; the target is replaced at one stroke."""
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    ignored = shutil.ignore_patterns("checkpoints", "wandb", LOCK, ROOM)
    shutil.copytree(folder, temporary, ignore=ignored, copy_function=shutil.copyfile)
    for place, _, _ in os.walk(temporary):
        os.chmod(place, os.stat(place).st_mode | stat.S_IRWXU)  # in a store of somebody else's they may be read-only
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def log_tail(folder: Path) -> tuple[str, ...]:
    """The last lines of the log in a run folder; none when there is none, or it is a link to somewhere else."""
    try:
        with inside(folder, LOG).open(errors="replace") as file:
            return tuple(line.rstrip("\n") for line in deque(file, _TAIL_LINES))
    except (OSError, ValueError):
        return ()
