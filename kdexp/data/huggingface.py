"""Your own Hugging Face data set, from a folder: ``pip install 'kdexp[huggingface]'``."""

import hashlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdexp.config.require import require
from kdexp.contracts import Source
from kdexp.data import content, own, table, text_table
from kdexp.data.csv_file import Column, File
from kdexp.data.huggingface_folder import StoredSplit, parts_of, splits_of
from kdexp.data.image_folder import is_image, opened, shown, squared
from kdexp.data.label_columns import targets_of

log = logging.getLogger(__name__)

_TEXTS = ("string", "large_string")
_NUMBERS = ("int", "uint", "float", "double", "halffloat", "bool")


def load(
    folder: str,
    label: str | Sequence[str],
    data_dir: own.Folders = ".",
    image: str | None = None,
    text: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    words: Sequence[str] = (),
    missing: str = "refuse",
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    size: int = 224,
) -> Source:
    """Read what ``save_to_disk`` wrote, or a folder of parquet or Arrow files, whose names say of which split they are.

    Args:
        folder: of the data set.
        label: the column with the classes: a ClassLabel, words or whole numbers; for a multi-label task a list of
            ClassLabels in each row, or several columns of 0 and 1.
        data_dir: where `folder` is looked for.
        image: the column with images, which are then all that is learned from; None: there is none.
        text: the column with texts, likewise. Without either the data are a table.
        columns: of a table what is learned from; None: all but the labels.
        drop: columns that are not.
        words: columns of words, though they are numbers.
        missing: what a missing value of a table is, see `kdexp.data.table.load`.
        train: the split that is learned from; None: train, or the only one.
        val: the split to choose by; None: validation, valid, val or dev, else split off by `make_splits`.
        test: the split to test on; None: test, else split off, stratified by class.
        test_fraction: in (0, 1), the fraction that is split off.
        val_fraction: that of `make_splits`, for `missing`.
        split_seed: likewise.
        size: height and width that images are brought to, in pixels; see `kdexp.data.image_folder.load`.

    Returns:
        Images that are read one at a time, texts (N, L) int32, or inputs (N, F) float32.

    Raises:
        FileNotFoundError: there is no such folder, or no data in it.
        ValueError: the library is not installed; a setting, a column or a value breaks a rule: one line.
    """
    labels = [label] if isinstance(label, str) else list(label)
    table.check_settings(labels, missing)
    require(image is None or text is None, "dataset.source.text", "must be null with dataset.source.image", text)
    at = own.located("dataset.source.folder", folder, data_dir)
    parts = parts_of(splits_of(at), at, {"train": train, "val": val, "test": test})
    _check_columns(parts, at, {"label": labels, "image": [image], "text": [text]})
    for setting, names in {"columns": columns, "drop": drop, "words": words}.items() if image or text else ():
        require(not names, f"dataset.source.{setting}", "must not be set with images or texts", names)
    targets, classes = _targets(parts, label)
    if image is not None:
        return _source(_images(parts, targets, image, size, test_fraction), classes, at)
    if text is not None:
        found = {part: text_table.filled(_texts(split, text), text) for part, split in parts.items()}
        return _source(text_table.coded_parts(found, targets, test_fraction)[0], classes, at)
    inputs = table.input_columns(parts["file"].rows.column_names, at, labels, columns, drop, words)
    files = {part: _file(split, inputs, words) for part, split in parts.items()}
    split = (test_fraction, val_fraction, split_seed)
    return table.of_files(files, targets, label, inputs, classes, missing, split)


def _check_columns(parts: Mapping[str, StoredSplit], at: Path, given: Mapping[str, Sequence[str | None]]) -> None:
    for part in parts.values():
        for setting, names in given.items():
            wanted = [name for name in names if name is not None]
            if wanted:
                own.check_columns(f"dataset.source.{setting}", wanted, part.rows.column_names, at / part.name)


def _source(parts: Mapping[str, tuple[Any, Tensor]], classes: Sequence[str], at: Path) -> Source:
    sizes = ", ".join(f"{len(target):,} {'train' if part == 'file' else part}" for part, (_, target) in parts.items())
    log.info("%s: %s; %d classes or labels: %s", at, sizes, len(classes), own.shown(classes))
    known = own.names_worth_telling(classes)
    return Source(*parts["file"], *parts["test"], val=parts.get("val"), classes=known)


# Columns


def _targets(parts: Mapping[str, StoredSplit], label: str | Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The target of each part, see `kdexp.contracts.Kind`, and the names of the classes or labels."""
    names = _class_names(parts["file"], label) if isinstance(label, str) else None
    if not isinstance(label, str) or names is None:
        labels = [label] if isinstance(label, str) else list(label)
        files = {part: _file(split, labels, labels, "label") for part, split in parts.items()}
        return targets_of(files, labels, several=not isinstance(label, str))
    require(len(names) > 1, "dataset.source.label", "must have at least two classes", f"{names} in {label!r}")
    for split in parts.values():
        rule = f"must have the classes of the training split ({own.shown(names)}) in {split.name}"
        require(_class_names(split, label) == names, "dataset.source.label", rule, _class_names(split, label))
    return {part: _numbers(split, label, len(names)) for part, split in parts.items()}, names


def _class_names(split: StoredSplit, label: str) -> list[str] | None:
    """Those of a ClassLabel, or of a list of them; None of any other column."""
    feature = split.rows.features[label]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else list(names)


def _numbers(split: StoredSplit, label: str, classes: int) -> Tensor:
    """(N,) int64 of a ClassLabel, (N, C) float32 of lists of them."""
    values = split.column(label).to_pylist()
    for row, value in enumerate(values):
        each = value if isinstance(value, list) else [value]
        if value is None or not all(isinstance(number, int) and 0 <= number < classes for number in each):
            hint = "; dataset.source.test=NAME tests on another split" if split.name == "test" else ""
            rule = "must be given in each row, got none" if value in (None, -1) else "must be a class, got"
            found = "" if value in (None, -1) else f" {value}"
            raise ValueError(f"dataset.source.label {rule}{found} in {label!r}, row {row} of {split.name}{hint}")
    if not isinstance(values[0], list):
        return torch.tensor(values, dtype=torch.int64)
    target = torch.zeros(len(values), classes)
    for row, numbers in enumerate(values):
        target[row, numbers] = 1
    return target


def _file(split: StoredSplit, names: Sequence[str], words: Sequence[str], setting: str = "columns") -> File:
    """Columns as those of a csv file; a row is a line of it, from 1."""
    absent = [name for name in names if name not in split.rows.column_names]
    require(not absent, "dataset.source", f"must have the columns of the training split in {split.name}", absent)
    lines = np.arange(1, len(split.rows) + 1)
    return File(Path(split.name), {name: Column(_values(split, name, setting, name in words), lines) for name in names})


def _values(split: StoredSplit, name: str, setting: str, is_words: bool) -> np.ndarray | list[str | None]:
    column, classes = split.column(name), getattr(split.rows.features[name], "names", None)
    kind = str(column.type)
    if kind in _TEXTS:
        return [(value or "").strip() or None for value in column.to_pylist()]
    if not kind.startswith(_NUMBERS):
        raise ValueError(
            f"dataset.source.{setting} must be numbers or words, got {name!r} of type {kind}; "
            "dataset.source.drop=[NAME] leaves a column out, dataset.source.image=NAME learns from images"
        )
    values = column.to_pylist()
    if classes is not None:
        return [classes[value] if value is not None and 0 <= value < len(classes) else None for value in values]
    if is_words:
        return [None if value is None else str(value) for value in values]
    numbers = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise ValueError(
            f"dataset.source.columns must hold finite numbers, got Inf in {name!r}, row {row} of {split.name}"
        )
    return numbers


def _texts(split: StoredSplit, text: str) -> File:
    kind = str(split.column(text).type)
    require(kind in _TEXTS, "dataset.source.text", "must name a column of texts", f"{text!r} of type {kind}")
    return _file(split, [text], [text])


# Images


class StoredImages:
    """Images that are held in a data set, as `kdexp.contracts.Images`; see `kdexp.data.image_folder.ImageFiles`.

    Args:
        split: that they are in.
        column: their column.
        rows: (N,) int64, their rows.
        size: in pixels.
    """

    def __init__(self, split: StoredSplit, column: str, rows: Tensor, size: int) -> None:
        self.rows, self.size = rows, size
        self._split, self._column, self._images = split, column, split.rows.select_columns([column])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        """One (3, size, size) uint8 image.

        Raises:
            ValueError: it is damaged.
        """
        row = int(self.rows[index])
        try:
            with opened(io.BytesIO(_encoded(self._images[row].column(self._column)[0].as_py()))) as image:
                return squared(shown(image), self.size)
        except Exception as error:  # whatever a parser makes of bytes that are not its own
            place = f"row {row} of {self._split.name}"
            raise ValueError(f"dataset.source.image must hold whole images, got in {place}: {error}") from error

    def fingerprint(self, store: Path) -> str:
        """SHA-256 over the contents of the split's files, which of its rows they are, and the size."""
        digest = hashlib.sha256(f"{self.size} {self._column} {content.of_files(self._split.files, store)}".encode())
        digest.update(self.rows.numpy().tobytes())
        return digest.hexdigest()


def _images(
    parts: Mapping[str, StoredSplit], targets: Mapping[str, Tensor], image: str, size: int, test_fraction: float
) -> dict[str, tuple[StoredImages, Tensor]]:
    for split in parts.values():
        _check_images(split, image)
    rows = {part: torch.arange(len(target)) for part, target in targets.items()}
    place = dict(parts)
    if "test" not in parts:
        place["test"] = parts["file"]
        rest, held = own.split_off_test(targets["file"], test_fraction, "dataset.source.test_fraction")
        rows |= {"file": rest, "test": held}
    of = {part: targets.get(part, targets["file"]) for part in place}
    return {part: (StoredImages(split, image, rows[part], size), of[part][rows[part]]) for part, split in place.items()}


def _check_images(split: StoredSplit, image: str) -> None:
    """See that each image is one by its header."""
    column = split.column(image)
    kind = str(column.type)
    if not (kind in ("binary", "large_binary") or (kind.startswith("struct<") and "bytes: " in kind)):
        rule = "must name a column of images"
        raise ValueError(
            f"dataset.source.image {rule}, got {image!r} of type {kind}; for arrays there is dataset=arrays"
        )
    for row, value in enumerate(column):
        encoded = value.as_py()
        place = f"row {row} of {split.name}"
        if not _encoded(encoded):
            named = encoded.get("path") if isinstance(encoded, dict) else None
            found = f"the name of a file, {named!r}, in {place}; save_to_disk writes them into it"
            rule = "must have the images in the data set"
            raise ValueError(f"dataset.source.image {rule}, got {found if named else f'none in {place}'}")
        try:
            is_one = is_image(io.BytesIO(_encoded(encoded)))
        except ValueError:  # of more bits
            is_one = False
        require(is_one, "dataset.source.image", "must hold images of 8 or 16 bits a channel", f"another in {place}")


def _encoded(value: Any) -> bytes:
    """The file that an image is; empty where it is not there."""
    return bytes((value.get("bytes") if isinstance(value, dict) else value) or b"")
