"""Arrays in a run folder, maybe somebody else's: sizes are checked before anything is unpacked, nothing is executed."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_MOST_BYTES = 64 * 2**20  # unpacked: ten times what a run writes


def packed_arrays(path: Path, names: Sequence[str], maybe: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name.

    Args:
        path: of the file.
        names: that it must hold.
        maybe: that it may hold.

    Raises:
        ValueError: it is no file, or too large.
        Exception: whatever zipfile and numpy make of somebody's bytes.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    with zipfile.ZipFile(path) as packed:
        size = sum(entry.file_size for entry in packed.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes, more than {_MOST_BYTES}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (*names, *(name for name in maybe if name in arrays))}
