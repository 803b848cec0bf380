"""Parquet files, which may be anybody's: ``pip install 'kdexp[parquet]'``."""

from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.data import own

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, Table
    from pyarrow.parquet import FileMetaData

_VALUE = 8  # bytes of a number


def read(path: Path, instead: str) -> "Table":
    """The table in a file; its columns of words are dictionaries, so that each word is in memory once.

    Args:
        path: of the file.
        instead: what else a file may be, for the message where pyarrow is not installed.

    Raises:
        ValueError: it is no whole parquet file, or would not fit (`kdexp.data.own.check_unpacked`); one line.
    """
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError as error:
        rule = f"must be {instead} unless pyarrow is installed (pip install 'kdexp[parquet]')"
        raise ValueError(f"dataset.source.file {rule}, got {path}") from error
    try:
        with parquet.ParquetFile(path) as file:
            own.check_unpacked(path, unpacked(file.metadata))
            words = [
                each.name
                for each in file.schema_arrow
                if types.is_string(each.type) or types.is_large_string(each.type)
            ]
        return parquet.read_table(path, read_dictionary=words)
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"dataset.source: {path} must be a whole parquet file, got: {reason}") from error


def values(column: "ChunkedArray") -> list[object]:
    """The values of a column of `read`, None where there is none."""
    if not str(column.type).startswith("dictionary"):
        return list(column.to_pylist())
    found: list[object] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        found += [None if place is None else words[place] for place in chunk.indices.to_pylist()]
    return found


def unpacked(said: "FileMetaData") -> int:
    """Bytes that a file would have in memory: a few of its own can stand for any number of equal values."""
    groups = (said.row_group(number) for number in range(said.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(max(0, column.total_uncompressed_size, _VALUE * column.num_values) for column in columns)
