"""Arrays, rows of a table and texts for a trained network: npy, csv, parquet, JSON lines, Python's own mappings."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdexp.data import csv_file, json_lines, own, parquet_file
from kdexp.data.csv_file import MISSING, Column, File
from kdexp.data.table import TableColumn, encoded
from kdexp.naming import counted

_TEXT = "text"


def read_rows(path: Path, columns: Sequence[TableColumn] | None, shape: Sequence[int]) -> Tensor:
    """The rows of a file as a network takes them.

    Args:
        path: csv, parquet or npy.
        columns: of the training table; None: the file's own, in its order, which must be numbers.
        shape: of a sample.

    Returns:
        (N, F) float32.

    Raises:
        ValueError: a column or a value is missing, and the like; one line.
        FileNotFoundError: there is no such file.
    """
    if path.suffix == ".npy":
        with np.errstate(over="ignore"):  # to Inf, which is refused here
            found = torch.from_numpy(read_array(path).astype(np.float32))
        if tuple(found.shape[1:]) != tuple(shape) or not found.isfinite().all():
            raise ValueError(f"{path} must have finite rows of shape {list(shape)}, got {list(found.shape)}")
        return found
    if not path.is_file():
        raise FileNotFoundError(f"not found: {path}")
    with _named(path):
        if path.suffix == ".parquet":
            return _of_values(_parquet(path), columns, shape, str(path))
        if columns is not None:
            file = csv_file.read(path, [one.name for one in columns], [], _words(columns))
            return _encoded(file, columns, str(path))
        file = csv_file.read(path, csv_file.header_of(path), [], [])
        return _of_values({name: list(one.values) for name, one in file.columns.items()}, None, shape, str(path))


def read_array(path: Path) -> np.ndarray:
    """The array of a npy file, which is read where it is looked at.

    Raises:
        ValueError: it holds no numbers, or is not whole; one line.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"not found: {path}")
    with _named(path):
        values = np.load(path, mmap_mode="c", allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
            raise ValueError(f"{path} must be an array of numbers, got {getattr(values, 'dtype', 'an archive')}")
    return values


def inputs_of(rows: Sequence[Mapping[str, object]], columns: Sequence[TableColumn] | None, place: str) -> Tensor:
    """Rows as mappings column -> value, as a network takes them.

    Args:
        rows: at least one. What is missing may be None, NaN or not there.
        columns: of the training table.
        place: for messages.

    Raises:
        ValueError: the network was not trained on a table, or a value is missing or no number; one line.
    """
    if columns is None:
        raise ValueError(
            f"{place} must be arrays where the network was not trained on columns of a table, got mappings"
        )
    values = {one.name: [row.get(one.name) for row in rows] for one in columns}
    return _of_values(values, columns, (), place)


def read_texts(path: Path, column: str | None = None) -> list[str]:
    """The texts of a file.

    Args:
        path: csv, parquet or JSON lines; or .txt, with a text in each line.
        column: with the texts; None: the one named ``text``, or the only one.

    Raises:
        ValueError: there is no such column, or a row without a text; one line.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"not found: {path}")
    with _named(path):
        if path.suffix == ".txt":
            texts: list[object] = list(path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))
        elif path.suffix == ".parquet":
            values = _parquet(path)
            texts = values[_column_of_texts(list(values), column, path)]
        else:
            is_json = path.suffix == ".jsonl"
            header = json_lines.header_of(path) if is_json else csv_file.header_of(path)
            name = _column_of_texts(header, column, path)
            file = json_lines.read(path, [name]) if is_json else csv_file.read(path, [], [], [], texts=[name])
            texts = list(file.columns[name].values)
    if missing := [row for row, text in enumerate(texts, start=1) if text is None or not str(text).strip()]:
        raise ValueError(f"{path} must have a text in each row, got none in row {missing[0]}")
    return [str(text) for text in texts]


def _column_of_texts(header: Sequence[str], column: str | None, path: Path) -> str:
    found = column or (header[0] if len(header) == 1 else _TEXT)
    if found not in header:
        raise ValueError(f"column must name the texts of {path.name} ({own.shown(header)}), got {column or 'none'}")
    return found


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What a data set's reader says of ``dataset.source``, said of a file."""
    try:
        yield
    except (ValueError, OSError, EOFError) as error:  # of npy files, which may be cut off or hold objects
        text = re.sub(r"^dataset\.source\.\w+ ", f"{path} ", str(error).removeprefix("dataset.source: "))
        raise ValueError(
            text if str(path) in text or path.name in text else f"{path} cannot be read: {text}"
        ) from error


def _parquet(path: Path) -> dict[str, list[object]]:
    table = parquet_file.read(path, "a csv file")
    return {name: parquet_file.values(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _of_values(
    values: Mapping[str, Sequence[object]], columns: Sequence[TableColumn] | None, shape: Sequence[int], place: str
) -> Tensor:
    """(N, F) float32 of columns by name; without `columns` those that there are, as numbers."""
    if columns is None:
        columns = [TableColumn(name) for name in values]
        if [len(columns)] != list(shape):
            raise ValueError(f"{place} must have {counted(shape[0], 'column')} of numbers, got {own.shown(values)}")
    if absent := [one.name for one in columns if one.name not in values]:
        raise ValueError(f"{place} must have the columns of the training table, {absent[0]!r} is missing")
    made = {one.name: _column(values[one.name], one, place) for one in columns}
    return _encoded(File(Path(place), made), columns, place)


def _column(values: Sequence[object], column: TableColumn, place: str) -> Column:
    lines = np.arange(1, len(values) + 1)
    cells = [None if _is_missing(value) else value for value in values]
    if column.words is not None:
        return Column([None if cell is None else str(cell).strip() for cell in cells], lines)
    numbers = np.full(len(cells), math.nan)
    for row, cell in enumerate(cells):
        try:
            numbers[row] = math.nan if cell is None else float(cell)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            numbers[row] = math.inf
        if math.isinf(numbers[row]):
            raise ValueError(f"{place} must have finite numbers in {column.name!r}, got {cell!r:.50} in row {row + 1}")
    return Column(numbers, lines)


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def _words(columns: Sequence[TableColumn]) -> list[str]:
    return [one.name for one in columns if one.words is not None]


def _encoded(file: File, columns: Sequence[TableColumn], place: str) -> Tensor:
    for one in columns:
        absent = file.columns[one.name].is_missing
        if one.fill is None and absent.any():
            line = file.columns[one.name].lines[absent.argmax()]
            raise ValueError(f"{place} must have a value in each row of {one.name!r}, got none in line {line}")
    return encoded(file, columns)
