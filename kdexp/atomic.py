"""Files that are either the old one or the new one, never half of it, and that are made by one process only."""

import csv
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdexp.config.untrusted import cell, printable

log = logging.getLogger(__name__)

_LARGEST_JSON = 64 * 2**20  # bytes; no file of kdexp's comes near it
_DEEPEST_JSON = 50  # the deepest of kdexp's has 8
_TOO_DEEP = f"it is nested more than {_DEEPEST_JSON} deep"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in path's folder; on success it is flushed to disk and renamed to path.

    The temporary file stands in the same folder because a rename across file systems is a copy, and a copy can be cut
    short by a full disk or a kill. On an exception the temporary file is removed and path is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.kdexp-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result is as readable as any file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV file with a column for each name in the rows, whole or not at all.

    Args:
        path: the file.
        rows: name -> value; a name that a row lacks is left empty there. Texts may be anybody's: see
            `kdexp.config.untrusted.printable` and `cell`.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(_shown, names))
        writer.writerows([_shown(row.get(name)) for name in names] for row in rows)


def _shown(value: object) -> object:
    return cell(printable(value)) if isinstance(value, str) else value


_STAGED = re.compile(r"\.[^/]+\.kdexp-[a-z0-9_]{8}(\.\w+)?")  # as `atomic_path` names them: nobody else's


def remove_staged(folder: Path) -> None:
    """Remove what a killed process left in a folder, and in those in it, of files that it was writing.

    Call it only while no other process writes there.
    """
    for path in (*folder.glob(".*.kdexp-*"), *folder.glob("[!.]*/.*.kdexp-*")):
        if _STAGED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def training_lock(lock: Path, what: str) -> Iterator[None]:
    """Let no other process train the same meanwhile; one that comes later waits, and says so.

    Args:
        lock: a file that all of them lock; its folder, below ``store_dir``, is made.
        what: is trained, for the message.

    Raises:
        ValueError: the folder cannot be written to.
    """
    # As other files, the lock is somebody else's too where the umask says so.
    held = FileLock(lock, mode=0o666)
    with writing_to_store(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            log.info("%s: waiting for another process that is training it", what)
            held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def writing_to_store(folder: Path) -> Iterator[None]:
    """Say which setting it is that names a folder where something has to be written.

    Raises:
        ValueError: it cannot be.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"store_dir must be a folder that can be written to, got {folder}: {error.strerror or error}"
        ) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file that may be anybody's.

    Raises:
        ValueError: there is no such file, it cannot be read, or it is not JSON of a reasonable size and depth.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has more than {_LARGEST_JSON // 2**20} MB")
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is not a file")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _is_deep(content):
        raise ValueError(_TOO_DEEP)
    return content


def _is_deep(content: object) -> bool:
    level = [content]
    for _ in range(_DEEPEST_JSON + 1):
        nodes = [node for node in level if isinstance(node, dict | list)]
        level = [value for node in nodes for value in (node.values() if isinstance(node, dict) else node)]
    return bool(level)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
