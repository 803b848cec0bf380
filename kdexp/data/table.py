"""Your own table: a csv file with a header, a sample in each row, its label in one column or several."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdexp.config.require import require
from kdexp.contracts import Source
from kdexp.data import own
from kdexp.data.csv_file import MOST_WORDS, Column, File, header_of, read
from kdexp.data.group_column import columns_of, groups_of
from kdexp.data.label_columns import targets_of
from kdexp.data.splits import train_and_val_index
from kdexp.data.text_table import load_texts
from kdexp.naming import counted

log = logging.getLogger(__name__)


class TableColumn(NamedTuple):
    """A column of a table that is learned from, and the inputs that become of it.

    Attributes:
        name: in the file's header.
        words: those that become an input of 0 and 1 each, in their order; None: the column is of numbers, one input.
        fill: a value for each of its inputs where the column has none; None: a missing value is refused.
    """

    name: str
    words: Sequence[str] | None = None
    fill: Sequence[float] | None = None


def load(
    file: str,
    label: str | Sequence[str],
    data_dir: own.Folders = ".",
    val: str | None = None,
    test: str | None = None,
    test_fraction: float = 0.2,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    words: Sequence[str] = (),
    missing: str = "refuse",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    text: str | None = None,
    group: str | None = None,
) -> Source:
    """Read a table. The delimiter is the one of comma, semicolon, tab and bar that the header has most of.

    A column is of numbers or of words. Words become as many inputs as the training file has different ones, of 0 and 1
    (one-hot); a word that only val or test have is none of them.

    Args:
        file: of the training samples, and of those that are split off from them.
        label: the column with the classes, as words or whole numbers; or several columns of 0 and 1 (true and false),
            for a multi-label task.
        data_dir: where files are looked for.
        val: file of the samples to choose by; None: split off by `make_splits`.
        test: file of the samples to test on; None: split off, stratified by class.
        test_fraction: in (0, 1), the fraction of `file` that is split off.
        columns: what is learned from; None: all but the labels.
        drop: columns that are not.
        words: columns of words, though they look like numbers (codes).
        missing: what a missing value is: ``refuse``, or ``mean``: replaced by the mean of the column in the training
            split, of words by their frequencies.
        val_fraction: that of `make_splits`, for that mean.
        split_seed: likewise.
        text: the column with the texts, which are then all that is learned from; None: the table is of numbers.
        group: the column with the groups of the test samples, which is not learned from; None: they have none.

    Returns:
        Inputs (N, F) float32 in the units of the file, or texts (N, L) int32; classes by name, unless they are 0..C-1.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a setting, a column or a cell breaks a rule: one line that names it.
    """
    labels = [label] if isinstance(label, str) else list(label)
    check_settings(labels, missing)
    paths = {"file": file, "val": val, "test": test}
    found = {name: own.located(f"dataset.source.{name}", path, data_dir) for name, path in paths.items() if path}
    if text is not None:
        return load_texts(found, label, text, test_fraction, group, unused={"columns": columns, "words": words})
    said = columns_of(found, labels, group)
    names = input_columns(header_of(found["file"]), found["file"], labels, columns, drop, words, group)
    files = {part: read(path, names, said[part], words) for part, path in found.items()}
    targets, classes = targets_of(files, labels, several=not isinstance(label, str))
    split = (test_fraction, val_fraction, split_seed)
    return of_files(files, targets, label, names, classes, missing, split, group)


def of_files(
    files: Mapping[str, File],
    targets: Mapping[str, Tensor],
    label: str | Sequence[str],
    names: Sequence[str],
    classes: Sequence[str],
    missing: str,
    split: tuple[float, float, int],
    group: str | None = None,
) -> Source:
    """A data set of files that were read.

    Args:
        files: by part, ``file`` and perhaps ``val`` and ``test``.
        targets: likewise, see `kdexp.contracts.Kind`.
        label: the column of the classes, or the columns of labels.
        names: of the columns that are learned from.
        classes: names of the classes or labels.
        missing: see `load`.
        split: its test_fraction, val_fraction and split_seed.
        group: a column of the tested file.

    Raises:
        ValueError: a value is missing, or a part is left without samples: one line.
    """
    rows, train = _rows(targets, *split)
    if "test" not in files:
        files, targets = {**files, "test": files["file"]}, {**targets, "test": targets["file"]}
    inputs = _columns(files["file"], names, train, fills=missing == "mean")
    parts = {part: (encoded(files[part], inputs)[rows[part]], targets[part][rows[part]]) for part in rows}
    _tell(files["file"].path, label, names, classes, parts)
    groups, known = groups_of(files["test"], group, rows["test"]), own.names_worth_telling(classes)
    return Source(*parts["file"], *parts["test"], val=parts.get("val"), classes=known, groups=groups, columns=inputs)


def _rows(
    targets: Mapping[str, Tensor], test_fraction: float, val_fraction: float, split_seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The rows of each part in its file, and those of the training split."""
    rows = {part: torch.arange(len(one)) for part, one in targets.items()}
    if "test" not in rows:
        rows["file"], rows["test"] = own.split_off_test(targets["file"], test_fraction, "dataset.source.test_fraction")
    train = rows["file"]
    if "val" not in rows:
        train = train[train_and_val_index(targets["file"][train], val_fraction, split_seed)[0]]
    return rows, train


def check_settings(labels: Sequence[str], missing: str) -> None:
    """See that there is a label, and what a missing value is; else a `ValueError`."""
    if missing not in ("refuse", "mean"):
        raise ValueError(f"dataset.source.missing must be refuse or mean, got {missing}")
    if not labels:
        raise ValueError("dataset.source.label must name a column, got none")


def _tell(
    path: Path,
    label: str | Sequence[str],
    names: Sequence[str],
    classes: Sequence[str],
    parts: Mapping[str, tuple[Tensor, Tensor]],
) -> None:
    inputs = parts["file"][0].shape[1]
    sizes = ", ".join(f"{len(target):,} {'train' if part == 'file' else part}" for part, (_, target) in parts.items())
    of = counted(len(names), "column")
    kind = f"{len(classes)} classes of {label}" if isinstance(label, str) else f"{len(classes)} labels"
    log.info(
        "%s: %s rows; %s of %s (%s); %s: %s",
        path,
        sizes,
        counted(inputs, "input"),
        of,
        own.shown(names),
        kind,
        own.shown(classes),
    )


def input_columns(
    header: Sequence[str],
    path: Path,
    labels: Sequence[str],
    columns: Sequence[str] | None,
    drop: Sequence[str],
    words: Sequence[str],
    group: str | None = None,
) -> list[str]:
    """The columns of a file that are learned from; see `load`.

    Raises:
        ValueError: a setting names a column that is not there, or none is left: one line.
    """
    settings = {"label": labels, "columns": columns or (), "drop": drop, "words": words}
    for setting, names in settings.items():
        if names:
            own.check_columns(f"dataset.source.{setting}", names, header, path)
    nameless = sum(not name for name in header)
    if nameless and columns is None:
        log.warning("warning: dataset.source: columns of %s without a name left out: %d", path.name, nameless)
    wanted = header if columns is None else columns
    require(group not in (columns or ()), "dataset.source.columns", "must not have dataset.source.group", group)
    names = [name for name in wanted if name and name not in labels and name not in drop and name != group]
    if not names:
        raise ValueError(f"dataset.source.columns must leave a column of {path.name} to learn from, got none")
    return names


def _columns(file: File, names: Sequence[str], train: Tensor, *, fills: bool) -> list[TableColumn]:
    """What becomes of the columns of the training file; `train` are its rows whose means fill what is missing."""
    found = []
    for name in names:
        column, words, fill = file.columns[name], _words(file, name), None
        if fills:
            known = _values(column, words, name, file.path)[train.numpy()][~column.is_missing[train.numpy()]]
            if len(known) == 0:
                raise ValueError(
                    f"dataset.source.columns must have a value to learn from, got {name!r} of {file.path.name} with "
                    "none in the training split; dataset.source.drop=[NAME] leaves it out"
                )
            fill = known.mean(0).tolist()
        found.append(TableColumn(name, words, fill))
    return found


def encoded(file: File, columns: Sequence[TableColumn]) -> Tensor:
    """The inputs of a file's rows.

    Args:
        file: with these columns.
        columns: those of the training file.

    Returns:
        (N, F) float32.

    Raises:
        ValueError: a value is missing where none may be, or a column has words in place of numbers: one line.
    """
    inputs = []
    for name, words, fill in columns:
        column = file.columns[name]
        values, absent = _values(column, words, name, file.path), column.is_missing
        if absent.any():
            if fill is None:
                raise ValueError(
                    f"dataset.source.missing must be mean where values are missing, got refuse: {name!r} has none in "
                    f"line {column.lines[absent.argmax()]} of {file.path.name} (missing in "
                    f"{counted(int(absent.sum()), 'row')})"
                )
            values[absent] = fill
        inputs.append(values)
    return torch.from_numpy(np.concatenate(inputs, 1, dtype=np.float32))


def _words(file: File, name: str) -> list[str] | None:
    """The different words of a column of the training file; None of numbers."""
    values = file.columns[name].values
    if not isinstance(values, list):
        return None
    words = sorted({value for value in values if value is not None})
    if len(words) > MOST_WORDS:
        raise ValueError(
            f"dataset.source.columns must hold numbers, or at most {MOST_WORDS} different words, got {len(words)} in "
            f"{name!r} ({words[0]!r}, {words[1]!r}, ...) of {file.path.name}; dataset.source.drop=[NAME] leaves it out"
        )
    return words


def _values(column: Column, words: Sequence[str] | None, name: str, path: Path) -> np.ndarray:
    """(N, k) float64."""
    is_words, is_empty = isinstance(column.values, list), bool(column.is_missing.all())
    if is_words is (words is None) and not is_empty:
        kinds = ("words", "numbers") if is_words else ("numbers", "words")
        raise ValueError(
            f"dataset.source: {name!r} must hold the same in every file, got {kinds[0]} in {path.name} and {kinds[1]} "
            "in the training file"
        )
    if words is None:
        return np.array(column.values, dtype=np.float64)[:, None]
    numbers = {word: number for number, word in enumerate(words)}
    values = np.zeros((len(column.lines), len(words)))
    unknown: set[str] = set()
    for row, word in enumerate(column.values if isinstance(column.values, list) else ()):
        if word in numbers:
            values[row, numbers[word]] = 1
        elif word is not None:
            unknown.add(word)
    if unknown:
        log.warning(
            "warning: dataset.source: words in %r of %s that the training file has not: %s",
            name,
            path.name,
            own.shown(sorted(unknown)),
        )
    return values
