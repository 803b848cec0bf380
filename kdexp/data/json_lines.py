"""A file of JSON lines, an object a line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdexp.data.csv_file import Column, File


def header_of(path: Path) -> list[str]:
    """The keys of a file's first object.

    Raises:
        ValueError: it has none: one line.
    """
    first = next(_objects(path), None)
    if first is None:
        raise ValueError(f"dataset.source: {path} must have an object in each line, got an empty file")
    return list(first[1])


def read(path: Path, names: Sequence[str]) -> File:
    """Read keys of a file as words.

    Args:
        path: of the file.
        names: the keys; what is not there, null or empty is missing.

    Raises:
        ValueError: a line is no object, or a value is neither text nor number: one line.
    """
    found: dict[str, list[str | None]] = {name: [] for name in names}
    lines = []
    for line, values in _objects(path):
        lines.append(line)
        for name in names:
            found[name].append(_word(values.get(name), name, line, path))
    absent = [name for name in names if not any(value is not None for value in found[name])]
    if absent:
        raise ValueError(f"dataset.source: {path} must have the key {absent[0]!r} in its objects, got none that has")
    at = np.array(lines)
    return File(path, {name: Column(values, at) for name, values in found.items()})


def _word(value: object, name: str, line: int, path: Path) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"dataset.source: {name!r} must be a text or a number, got a {type(value).__name__} in line {line} of "
            f"{path.name}"
        )
    return str(value).strip() or None


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Line (from 1) and content of each line that is not empty."""
    if path.is_dir():
        raise ValueError(f"dataset.source.file must be a file, got the folder {path}")
    with path.open(encoding="utf-8-sig") as file:
        try:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    values = json.loads(text)
                    if not isinstance(values, dict):
                        raise ValueError(f"a {type(values).__name__}")
                    yield line, values
        except UnicodeDecodeError as error:
            raise ValueError(f"dataset.source: {path} must be text in UTF-8, got another encoding: {error}") from error
        except ValueError as error:
            rule = "must have a JSON object in each line"
            raise ValueError(f"dataset.source: {path} {rule}, got in line {line}: {error}") from error
