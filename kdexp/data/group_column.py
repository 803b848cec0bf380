"""The column of a person's own table that says which group a test sample belongs to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from kdexp.config.require import require
from kdexp.data import csv_file, json_lines, own
from kdexp.data.csv_file import MOST_WORDS, File

SETTING = "dataset.source.group"


def columns_of(paths: Mapping[str, Path], labels: Sequence[str], group: str | None) -> dict[str, list[str]]:
    """Of each part the columns that are words whatever they look like: the labels, and of the tested one the group.

    Args:
        paths: by part, ``file`` and perhaps ``test`` among them.
        labels: the columns of labels.
        group: the column of groups; None: there is none.

    Raises:
        ValueError: the file has no such column, or it is a label: one line.
    """
    tested = "test" if "test" in paths else "file"
    if group is not None:
        path = paths[tested]
        header = json_lines.header_of(path) if path.suffix == ".jsonl" else csv_file.header_of(path)
        own.check_columns(SETTING, [group], header, path)
        require(group not in labels, SETTING, "must be another column than dataset.source.label", group)
    return {part: [*labels, *([group] if group is not None and part == tested else [])] for part in paths}


def groups_of(file: File, group: str | None, rows: Tensor) -> tuple[Sequence[str], Tensor] | None:
    """The groups of the test samples, see `kdexp.contracts.Source`; None without a column.

    Args:
        file: that they are in, read with the column as words.
        group: the column.
        rows: (N,) int64, theirs in the file.

    Raises:
        ValueError: a sample has none, or there are not at least two of few: one line.
    """
    if group is None:
        return None
    column = file.columns[group]
    words = [column.values[row] for row in rows.tolist()]
    if None in words:
        line = column.lines[rows[words.index(None)]]
        raise ValueError(f"{SETTING} must be given in each test row, got none in line {line} of {file.path.name}")
    texts = [str(word) for word in words]
    names = own.classes_of(texts)
    if not 2 <= len(names) <= MOST_WORDS:
        rule = f"must have at least two and at most {MOST_WORDS} groups among the test rows"
        raise ValueError(f"{SETTING} {rule}, got {len(names)} in {group!r} of {file.path.name} ({own.shown(names)})")
    return names, own.numbered(texts, names)
