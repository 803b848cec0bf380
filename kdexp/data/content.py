"""What a data set is, wherever it lies and whatever its files are called: a digest of what is in it."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from kdexp.atomic import atomic_path, sha256
from kdexp.contracts import Source
from kdexp.progress_log import EVERY_SECONDS, duration

log = logging.getLogger(__name__)

_READERS, _AT_ONCE = 16, 1024  # threads: on a slow disk most of them wait

Result = TypeVar("Result")


def of_source(source: Source, store: Path) -> str:
    """Hex digest of what is learned from, chosen by and tested on.

    Args:
        source: the data set.
        store: ``store_dir``, see `of_files`.
    """
    digest = hashlib.sha256()
    for part in (source.train_inputs, source.train_target, source.test_inputs, source.test_target, *(source.val or ())):
        if isinstance(part, Tensor):
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.contiguous().numpy().tobytes())
        else:
            digest.update(part.fingerprint(store).encode())
    return digest.hexdigest()


def of_files(paths: Sequence[Path], store: Path) -> str:
    """Hex digest of the contents of files in this order. They are read once.

    Args:
        paths: of the files.
        store: ``store_dir``: the digest is remembered there, for files of the same paths, sizes and times of change.

    Raises:
        OSError: a file cannot be read.
    """
    known = hashlib.sha256()
    for path in paths:
        status = path.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"  # a copy may keep the former of another file
        known.update(f"{path.absolute()} {status.st_size} {times}\n".encode())
    remembered = store / "contents" / known.hexdigest()
    with suppress(OSError):
        if re.fullmatch("[0-9a-f]{64}", digest := remembered.read_text()):
            return digest
    contents = hashlib.sha256()
    for one in each(sha256, paths, "reading the images once, to know them again wherever they lie:"):
        contents.update(one.encode())
    with suppress(OSError), atomic_path(remembered) as temporary:  # another user's store may not be written to
        temporary.write_text(contents.hexdigest())
    return contents.hexdigest()


def each(function: Callable[[Path], Result], paths: Sequence[Path], what: str) -> Iterator[Result]:
    """What a function makes of each of many files, several at a time, with a line in the log now and then.

    Args:
        function: of a path.
        paths: of the files.
        what: is done with them.
    """
    started = said = time.monotonic()
    with ThreadPoolExecutor(_READERS) as pool:
        blocks = (paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE))
        for done, result in enumerate((one for block in blocks for one in pool.map(function, block)), start=1):
            now = time.monotonic()
            if now - said >= EVERY_SECONDS:
                said, left = now, (now - started) / done * (len(paths) - done)
                log.info("dataset.source: %s %d of %d files, about %s left", what, done, len(paths), duration(left))
            yield result
