"""Your own texts: a column of a csv file, or a key of JSON lines, with the label in another one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdexp.config.require import require
from kdexp.contracts import Source
from kdexp.data import csv_file, json_lines, own
from kdexp.data.csv_file import File
from kdexp.data.group_column import SETTING, columns_of, groups_of
from kdexp.data.label_columns import targets_of
from kdexp.data.texts import code_points

log = logging.getLogger(__name__)

MOST_CHARACTERS = 5000
"""A text is held as so many numbers as the longest one has characters."""


def load_texts(
    paths: Mapping[str, Path],
    label: str | Sequence[str],
    text: str,
    test_fraction: float,
    group: str | None,
    unused: Mapping[str, Sequence[str] | None],
) -> Source:
    """Read texts and their labels.

    Args:
        paths: of the training texts, ``file``, and perhaps of ``val`` and ``test``; JSON lines end with .jsonl.
        label: the column with the classes, or several of 0 and 1.
        text: the column with the texts.
        test_fraction: of the training texts that is split off where there is no test file.
        group: the column with the groups of the test samples; None: they have none.
        unused: settings by name that must be empty, since they mean nothing for texts.

    Returns:
        (N, L) int32 code points; see `kdexp.data.table.load`.

    Raises:
        ValueError: a column or a text is missing, or a label: one line that names file, column and line.
    """
    for name, value in unused.items():
        if value:
            raise ValueError(f"dataset.source.{name} must not be set with dataset.source.text, got {list(value)}")
    labels = [label] if isinstance(label, str) else list(label)
    _check_columns(paths["file"], labels, text)
    require(text != group, SETTING, "must be another column than dataset.source.text", group)
    said = columns_of(paths, labels, group)
    files = {part: _read(path, said[part], text) for part, path in paths.items()}
    targets, classes = targets_of(files, labels, several=not isinstance(label, str))
    parts, held = coded_parts({part: filled(file, text) for part, file in files.items()}, targets, test_fraction)
    sizes = ", ".join(f"{len(target):,} {'train' if part == 'file' else part}" for part, (_, target) in parts.items())
    log.info("%s: %s texts of %s; %s: %s", paths["file"], sizes, text, ", ".join(labels), own.shown(classes))
    groups, known = groups_of(files.get("test", files["file"]), group, held), own.names_worth_telling(classes)
    return Source(*parts["file"], *parts["test"], val=parts.get("val"), classes=known, groups=groups)


def coded_parts(
    texts: Mapping[str, Sequence[str]], targets: Mapping[str, Tensor], test_fraction: float
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Code points (n, L) int32 and targets of each part, and the rows of test in its file.

    Args:
        texts: by part; ``file`` are those of the training samples, of which test is split off if it is not there.
        targets: likewise.
        test_fraction: see `load_texts`.

    Raises:
        ValueError: a part is left without samples: one line.
    """
    longest = min(max(len(one) for part in texts.values() for one in part), MOST_CHARACTERS)
    cut = sum(len(one) > longest for part in texts.values() for one in part)
    if cut:
        log.warning("warning: dataset.source: texts of more than %d characters, cut there: %d", longest, cut)
    parts = {part: (code_points(texts[part], longest), targets[part]) for part in texts}
    held = torch.arange(len(targets.get("test", ())))
    if "test" not in parts:
        x, y = parts["file"]
        rest, held = own.split_off_test(y, test_fraction, "dataset.source.test_fraction")
        parts |= {"file": (x[rest], y[rest]), "test": (x[held], y[held])}
    return parts, held


def _check_columns(path: Path, labels: Sequence[str], text: str) -> None:
    header = json_lines.header_of(path) if path.suffix == ".jsonl" else csv_file.header_of(path)
    for setting, names in (("text", [text]), ("label", labels)):
        own.check_columns(f"dataset.source.{setting}", names, header, path)
    if text in labels:
        raise ValueError(f"dataset.source.text must be another column than dataset.source.label, got {text}")


def _read(path: Path, labels: Sequence[str], text: str) -> File:
    if path.suffix == ".jsonl":
        return json_lines.read(path, [text, *labels])
    return csv_file.read(path, [], labels, [], texts=[text])


def filled(file: File, text: str) -> list[str]:
    """The texts of a column.

    Raises:
        ValueError: one is missing.
    """
    column = file.columns[text]
    if column.is_missing.any():
        raise ValueError(
            f"dataset.source.text must have a text in each row, got none in {text!r}, line "
            f"{column.lines[column.is_missing.argmax()]} of {file.path.name}"
        )
    return [str(value) for value in column.values]
