"""A csv file, read in parts: numbers where all of a column are numbers, else words."""

import csv
import itertools
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

log = logging.getLogger(__name__)

MISSING = frozenset(
    ["", "?", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "nil", "missing"]
)  # in lower case
"""What a cell without a value holds; what pandas takes for one, and the ``?`` of the UCI repository."""
_DELIMITERS = ",;\t|"
_DECIMAL_COMMA = re.compile(r"[+-]?[\d.]*,\d+([eE][+-]?\d+)?")  # of its words a column would be one-hot
MOST_WORDS = 100  # a column of more is a name or an id, nothing to learn from
_SAY_EVERY_SECONDS = 5.0
_PART = 20_000  # rows that are text at the same time


@dataclass(frozen=True)
class Column:
    """A column of a file.

    Attributes:
        values: (N,) float64, NaN where a value is missing; or N words, None where one is missing.
        lines: (N,) int64, the line of the file that each row begins on.
    """

    values: np.ndarray | list[str | None]
    lines: np.ndarray

    @property
    def is_missing(self) -> np.ndarray:
        """(N,) whether a value is missing."""
        if isinstance(self.values, list):
            return np.array([value is None for value in self.values], dtype=bool)
        missing: np.ndarray = np.isnan(self.values)
        return missing


@dataclass(frozen=True)
class File:
    """A file that was read.

    Attributes:
        path: where it is.
        columns: by name, those that were wanted.
    """

    path: Path
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())).lines)


def header_of(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        ValueError: it has none, or two of one name; one line.
    """
    with _opened(path) as file:
        header = next(_rows(file, path), (0, []))[1]
    names = [name.strip() for name in header]
    if not any(names):
        raise ValueError(f"dataset.source: {path} must begin with a line of column names, got an empty one")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ValueError(f"dataset.source: {path} must have different column names, got {twice[0]!r} twice")
    return names


def read(
    path: Path, inputs: Sequence[str], labels: Sequence[str], words: Sequence[str], texts: Sequence[str] = ()
) -> File:
    """Read columns of a file.

    Args:
        path: of the file.
        inputs: columns of numbers or words.
        labels: columns of words, whatever they look like.
        words: those of the inputs that are words, whatever they look like.
        texts: columns of texts, in which nothing but an empty cell is a missing value.

    Raises:
        ValueError: a column is missing, a row has another number of cells, and the like: one line.
    """
    names = header_of(path)
    absent = [name for name in (*inputs, *labels, *texts) if name not in names]
    if absent:
        raise ValueError(f"dataset.source: {path} must have the columns of the training file, {absent[0]!r} is missing")
    collected = {
        name: _Collected(name, path, is_words=True if name in labels or name in words else None)
        for name in (*inputs, *labels)
    }
    collected |= {name: _Collected(name, path, is_words=True, missing=frozenset([""])) for name in texts}
    lines: list[int] = []
    with _opened(path) as file:
        rows = _rows(file, path)
        next(rows)
        for part in _parts(rows):
            first = len(lines)
            lines += [line for line, _ in part]
            cells = dict(zip(names, zip(*(row for _, row in part), strict=True), strict=True))
            for name, column in collected.items():
                column.add(cells[name], lines[first:])
    if not lines:
        raise ValueError(f"dataset.source: {path} must have rows below its header, got none")
    at = np.array(lines)
    return File(path, {name: column.finished(at) for name, column in collected.items()})


class _Collected:
    """A column while it is read."""

    def __init__(self, name: str, path: Path, is_words: bool | None, missing: frozenset[str] = MISSING) -> None:
        self._missing = missing
        self._name, self._path, self._is_words, self._is_fixed = name, path, is_words, is_words is not None
        self._numbers: list[np.ndarray] = []
        self._words: list[str | None] = []
        self._known: dict[str, str] = {}  # so that each word is in memory once
        self._empty = 0

    def add(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        texts = [None if cell.strip().lower() in self._missing else cell.strip() for cell in cells]
        if self._is_fixed:
            self._words += [None if text is None else self._known.setdefault(text, text) for text in texts]
            return
        numbers = [math.nan if text is None else as_number(text) for text in texts]
        for text, number, line in zip(texts, numbers, lines, strict=True):
            if text is None:
                continue
            is_word = number is None
            if is_word and _DECIMAL_COMMA.fullmatch(text):
                pointed = text.replace(".", "").replace(",", ".")
                raise ValueError(
                    f"dataset.source.columns must hold numbers with decimal points, got a comma in {text} of "
                    f"{self._name!r}, line {line} of {self._path.name}; write {pointed} in the file, "
                    "or dataset.source.words=[NAME] where they are words"
                )
            if self._is_words is None:
                self._is_words = is_word
            if is_word is not self._is_words:
                raise ValueError(
                    f"dataset.source.columns must hold numbers or words, got both in {self._name!r}: {text!r} in line "
                    f"{line} of {self._path.name}; dataset.source.words=[NAME] reads numbers as words, "
                    "dataset.source.drop=[NAME] leaves the column out"
                )
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"dataset.source.columns must hold finite numbers, got {text} in {self._name!r}, line {line} of "
                    f"{self._path.name}"
                )
        if self._is_words is None:
            self._empty += len(texts)
        elif self._is_words:
            self._words += [None if text is None else self._known.setdefault(text, text) for text in texts]
        else:
            self._numbers.append(np.array(numbers, dtype=np.float64))

    def finished(self, lines: np.ndarray) -> Column:
        if self._is_words:
            return Column([*itertools.repeat(None, self._empty), *self._words], lines)
        return Column(np.concatenate([np.full(self._empty, math.nan), *self._numbers]), lines)


def as_number(text: str) -> float | None:
    """The number that a cell is; None of a word."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _opened(path: Path) -> TextIO:
    if path.is_dir():
        raise ValueError(f"dataset.source.file must be a file, got the folder {path}")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line (from 1) and cells of each row that is not empty."""
    reader = None
    width = 0
    try:
        first = file.readline()
        file.seek(0)
        delimiter = max(_DELIMITERS, key=first.count)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        line = 1
        for row in reader:
            if row:
                width = width or len(row)
                if len(row) != width:
                    raise ValueError(
                        f"dataset.source: {path} must have as many cells in each row as column names, "
                        f"{width}, got {len(row)} in line {line}"
                    )
                yield line, row
            line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise ValueError(f"dataset.source: {path} must be text in UTF-8, got another encoding: {error}") from error
    except csv.Error as error:
        line = reader.line_num if reader else 1
        raise ValueError(f"dataset.source: {path} must be a csv file, got in line {line}: {error}") from error


def _parts(rows: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    done, said = 0, time.perf_counter()
    part: list[tuple[int, list[str]]] = []
    for row in rows:
        part.append(row)
        if len(part) == _PART:
            done += len(part)
            if time.perf_counter() - said > _SAY_EVERY_SECONDS:
                said = time.perf_counter()
                log.info("dataset.source: %d rows read", done)
            yield part
            part = []
    if part:
        yield part
