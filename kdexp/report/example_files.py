"""Files of examples in a run folder, maybe somebody else's: sizes are checked before anything is unpacked or shown.

Nothing in a file is executed.
"""

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from kdexp.config.untrusted import inside

NETWORKS = ("teacher", "student")
"""Whose outputs are in a file, in the order in which they are shown."""
_MOST_BYTES = 64 * 2**20  # unpacked: ten times what a run writes

T = TypeVar("T")


def read_file(folder: Path, name: str, what: str, load: Callable[[Path], T]) -> T | None:
    """What is in a file of a run folder; None where it is not there.

    Args:
        folder: of the run.
        name: of the file.
        what: is to be in it, for messages.
        load: reads it and checks it; may raise whatever a parser makes of somebody's bytes.

    Raises:
        ValueError: the file leads out of the folder, is damaged, or holds something else; one line.
    """
    path = inside(folder, name)
    if not os.path.lexists(path):
        return None
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        return load(path)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} must hold {what} of a run: {reason}") from error


def packed_arrays(path: Path, names: Sequence[str], maybe: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name.

    Args:
        path: of the file.
        names: that it must hold.
        maybe: that it may hold.

    Raises:
        ValueError: it is too large.
        Exception: whatever zipfile and numpy make of somebody's bytes.
    """
    with zipfile.ZipFile(path) as packed:
        size = sum(entry.file_size for entry in packed.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes, more than {_MOST_BYTES}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (*names, *(name for name in maybe if name in arrays))}


def with_control(own: Mapping[str, T], control: Mapping[str, T]) -> dict[str, T]:
    """The outputs of a run's networks by name, with those of the control's student between teacher and student."""
    taught = {name: found for name, found in own.items() if name != "student"}
    return {**taught, "control": control["student"], "student": own["student"]}


def evenly_spaced(number: int, most: int) -> list[int]:
    """At most so many of the places 0..number-1, at even distances from 0 on."""
    count = min(most, number)
    return [part * number // count for part in range(count)]
