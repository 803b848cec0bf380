"""What all data sets of a user's own have in common: where files are, labels as words or numbers, a test part."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdexp.data.splits import held_out
from kdexp.data.stateless_rng import RngStream

Folders = str | Sequence[str]
"""Where a relative path is looked for: the first that has it counts."""

_SHOWN = 10
_UNPACKED = 2**31
_PACKED = 100  # times, of what is packed well
_YES_AND_NO = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0}


def located(setting: str, path: str, folders: Folders) -> Path:
    """Find a file or folder.

    Args:
        setting: that names it, for the message.
        path: absolute, or relative to one of the folders.
        folders: see `Folders`.

    Raises:
        FileNotFoundError: it is nowhere.
        ValueError: it is neither a file nor a folder.
    """
    places = [folders] if isinstance(folders, str) else list(folders)
    tried = list(dict.fromkeys((Path(place) / Path(path).expanduser()).absolute() for place in places))
    for found in tried:
        if found.is_file() or found.is_dir():
            return found
        if found.exists():  # a device or a pipe, which may have no end
            raise ValueError(f"{setting} must be a file or a folder, got {found}")
    raise FileNotFoundError(f"{setting}: not found: {' or '.join(map(str, tried))}")


def check_unpacked(path: Path, size: int) -> None:
    """See that what is packed in a file is of a size that can be, before it is unpacked.

    Args:
        path: of the file.
        size: bytes that it says it has unpacked.

    Raises:
        ValueError: they are more than 2 GB and more than a hundred times its own.
    """
    most = max(_UNPACKED, _PACKED * path.stat().st_size)
    if size > most:
        rule = f"must have at most {most / 2**30:.3g} GB unpacked"
        raise ValueError(f"dataset.source: {path} {rule}, got {size / 2**30:.3g} GB")


def classes_of(labels: Iterable[str]) -> list[str]:
    """The different labels: in the order of numbers if all are whole numbers, else in the alphabet's."""
    names = set(labels)
    if all(_is_whole(name) for name in names):
        return [str(number) for number in sorted({int(float(name)) for name in names})]
    return sorted(names)


def numbered(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """(N,) int64: the number of each label among the classes; -1 where it is none of them."""
    numbers = {name: number for number, name in enumerate(classes)}
    if all(_is_whole(name) for name in classes):
        labels = [str(int(float(label))) if _is_whole(label) else label for label in labels]
    return torch.tensor([numbers.get(label, -1) for label in labels], dtype=torch.int64)


def names_worth_telling(classes: Sequence[str]) -> list[str] | None:
    """The names of classes; None where they are their numbers, so that ``dataset.classes`` may name them."""
    return None if list(classes) == [str(number) for number in range(len(classes))] else list(classes)


def yes_or_no(text: str) -> float | None:
    """1 or 0, as a cell of a multi-label table says it; None: it says neither."""
    return _YES_AND_NO.get(text.strip().lower())


def check_columns(setting: str, names: Sequence[str], columns: Collection[str], file: Path) -> None:
    """See that a setting names columns of a file.

    Raises:
        ValueError: it names none, or one that the file has not.
    """
    unknown = [name for name in names if name not in columns]
    if unknown or not names:
        found = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"{setting} must name columns of {file.name} ({shown(columns)}), got {found}")


def split_off_test(target: Tensor, fraction: float, setting: str) -> list[Tensor]:
    """Hold out a test part, stratified by class, the same whatever the seeds of the experiment are.

    Args:
        target: (N,) int64 or (N, C).
        fraction: in (0, 1).
        setting: that says the fraction.

    Returns:
        Positions of the rest and of the test part.

    Raises:
        ValueError: the fraction is out of range, or leaves one part without samples or without one of the classes.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"{setting} must be in (0, 1), got {fraction}")
    parts = list(held_out(target, fraction, 0, RngStream.TEST))
    if not all(len(part) for part in parts):
        raise ValueError(f"{setting} must leave samples for train and test, got {fraction} of {len(target)} samples")
    if target.dim() == 1:
        lost = sorted(set(target.tolist()) - set(target[parts[0]].tolist()))
        if lost:
            raise ValueError(
                f"{setting} must leave samples of every class for training (class {lost[0]} of {len(target)} samples "
                f"has {int((target == lost[0]).sum())}), got {fraction}"
            )
    return parts


def shown(names: Iterable[object]) -> str:
    """The first of many names, for messages."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:_SHOWN]) + (f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else "")


def _is_whole(text: str) -> bool:
    try:
        return bool(np.isfinite(number := float(text))) and number == int(number) and "_" not in text
    except ValueError:
        return False
