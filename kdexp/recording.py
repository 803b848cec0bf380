"""results.json while a run lasts, and what is written when it ends."""

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from kdexp import signals
from kdexp.atomic import read_json, remove_staged
from kdexp.config.untrusted import without_password
from kdexp.results import FILE, SCHEMA_VERSION, Record, Results, read_or_nothing, status_of, write
from kdexp.run_folder import ROOM, alone

_ROOM_BYTES = 2**18  # some times what a run's results.json has


@contextmanager
def recording(folder: Path, metadata: Record) -> Iterator[Results]:
    """Keep results.json true while a run lasts.

    Args:
        folder: the run folder.
        metadata: what is known before: configuration, fingerprints, names.

    Yields:
        The results so far, to be added to. They are written when the block begins, and when it ends, however it ends.

    Raises:
        ValueError: another process runs in the folder.
    """
    results: Results = {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        **metadata,
        "versions": _versions(),
        "started": _now(),
    }
    with alone(folder):
        remove_staged(folder)
        write(folder, results)
        _running.add(folder)
        try:
            # Random bytes: not even a file system that compresses saves their room.
            (folder / ROOM).write_bytes(os.urandom(_ROOM_BYTES))
            yield results
            _end(folder, results, "completed")
        except BaseException as error:
            # What was written as completed stays so: a signal may come between that and the end of the block.
            is_completed = read_or_nothing(folder).get("status") == "completed"
            with suppress(OSError):  # a full disk, most likely: the earlier error is the one to report
                if not is_completed:
                    _end(folder, results, status_of(error), error=_reason(error))
            raise
        finally:
            _running.discard(folder)


_running: set[Path] = set()
"""Of this process: the folders of runs that have not said how they ended."""
_ending = threading.Lock()


def _end(folder: Path, results: Results, status: str, **more: str) -> None:
    results |= {"status": status, **more, "ended": _now()}
    with _ending:
        _write_last(folder, results)


def _write_last(folder: Path, results: Record) -> None:
    """Write how a run ended; on a full disk into the room that was kept for it."""
    (folder / ROOM).unlink(missing_ok=True)
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


def mark_dead(folder: Path, status: str, error: str) -> None:
    """Say how a run ended that could not say so itself; nothing when it did, or when it was taken up again."""
    with suppress(ValueError), alone(folder):
        if (folder / FILE).is_file():
            _note(folder, status, error)


def _note(folder: Path, status: str, error: str) -> None:
    results = read_json(folder / FILE)
    if results.get("status") == "running":
        _write_last(folder, results | {"status": status, "error": error, "ended": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _reason(error: BaseException) -> str:
    code = signals.interruption(error)
    if code is not None:
        return signals.reason(code)
    said = str(error) if status_of(error) == "pruned" else f"{type(error).__name__}: {error}"
    return without_password(said)


def _versions() -> dict[str, str]:
    packages = ("kdexp", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
