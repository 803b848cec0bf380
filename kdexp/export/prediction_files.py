"""Predictions of whole files and folders, written as a table; of images with masks as PNG files beside one."""

import csv
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdexp.atomic import atomic_path
from kdexp.config.untrusted import cell, escaped
from kdexp.export.inputs import ARRAY, Files, files_in
from kdexp.export.predictions import Masks, Predictions
from kdexp.export.student import LoadedStudent, check_batch_size
from kdexp.export.table_files import read_texts
from kdexp.progress_log import EVERY_SECONDS, duration

log = logging.getLogger(__name__)

TABLE = "predictions.csv"


class Written(NamedTuple):
    """What was written.

    Attributes:
        table: the csv file: ``file`` (or ``row``, from 1), ``label``, ``confidence``, a probability of each class
            (``p_NAME``); of masks ``mask``, ``confidence`` (the mean over pixels) and the share of each class
            (``share_NAME``); and ``error``, why there is none. Names and labels may be anybody's: their control
            characters are `escaped`, and none is a formula of a spreadsheet (`cell`); both can be taken back.
        samples: how many there were.
        unread: how many of them could not be read.
    """

    table: Path
    samples: int
    unread: int


def write(
    student: LoadedStudent,
    inputs: Path,
    out: Path | None,
    *,
    column: str | None = None,
    batch_size: int = 64,
    overwrite: bool = False,
) -> Written:
    """Predict what is in a file or a folder, and write it, whole or not at all.

    Args:
        student: that predicts.
        inputs: a folder of images, one, or a npy file of them; a csv, parquet or npy file of rows; a file of texts.
        out: the csv file; of masks a folder; None: ``predictions.csv`` or ``masks`` here.
        column: with the texts; None: see `read_texts`.
        batch_size: samples that the network sees at once.
        overwrite: whether what is there may be replaced.

    Raises:
        ValueError: a setting breaks a rule, or the file does; one line. Why an image cannot be read is said in its row.
        FileNotFoundError: there is nothing to predict.
    """
    check_batch_size(batch_size)
    if not inputs.exists():
        raise FileNotFoundError(f"inputs must be a file or a folder, not found: {inputs}")
    masks = student.inputs.any_size
    place = out or Path("masks" if masks else TABLE)
    if inputs.resolve().is_relative_to(place.resolve()):
        raise ValueError(f"out must be another place than inputs, got {place}")
    taken = any(place.iterdir()) if masks and place.is_dir() else os.path.lexists(place)
    if taken and not overwrite:
        raise ValueError(f"out must not be there yet (overwrite=true replaces it), got {place}")
    if not masks and place.is_dir():
        raise ValueError(f"out must be a csv file, got the folder {place}")
    if student.inputs.kind == "images" and inputs.suffix != ARRAY:
        rows = _of_images(student, inputs, place if masks else None, batch_size)
    else:
        found = read_texts(inputs, column) if student.inputs.kind == "texts" else str(inputs)
        said = student.predict(found, batch_size=batch_size)
        told = _rows(said) if isinstance(said, Predictions) else _rows_of_masks(said, place)
        rows = ({"row": number, **row, "error": ""} for number, row in enumerate(told, start=1))
    return _written(place / TABLE if masks else place, rows)


def _written(table: Path, rows: Iterator[Mapping[str, object]]) -> Written:
    samples = unread = 0
    with atomic_path(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.writer(file)
                writer.writerow(map(_cell, row))
            writer.writerow(map(_cell, row.values()))
            samples, unread = samples + 1, unread + bool(row["error"])
    return Written(table, samples, unread)


def _cell(value: object) -> object:
    return cell(escaped(value)) if isinstance(value, str) else value


def _rows(said: Predictions) -> Iterator[dict[str, object]]:
    labels = [";".join(label) if isinstance(label, list) else label for label in said.labels]
    names = [f"p_{name}" for name in said.classes]
    for label, confidence, values in zip(labels, said.confidences.tolist(), said.probabilities.tolist(), strict=True):
        shares = {name: f"{value:.6g}" for name, value in zip(names, values, strict=True)}
        yield {"label": label, "confidence": f"{confidence:.6g}", **shares}


def _rows_of_masks(said: Masks, folder: Path) -> Iterator[dict[str, object]]:
    for number in range(len(said)):
        name = f"{number + 1}.png"
        yield {"mask": name, **_kept(said.masks[number], said.confidences[number], said.classes, folder / name)}


# Images


def _of_images(
    student: LoadedStudent, inputs: Path, masks: Path | None, batch_size: int
) -> Iterator[Mapping[str, object]]:
    paths = files_in(inputs)
    root = inputs if inputs.is_dir() else inputs.parent
    names = [path.relative_to(root) for path in paths]
    alike = Counter(name.with_suffix("") for name in names)
    empty: dict[str, object] = dict.fromkeys(_columns(student, are_masks=masks is not None), "")
    started = said = time.monotonic()
    for first in range(0, len(paths), batch_size):
        for name, found in zip(names[first:], _read(student, paths[first : first + batch_size]), strict=False):
            row: dict[str, object] = {"file": str(name), **empty, "error": ""}
            if isinstance(found, str):
                row["error"] = found
            elif isinstance(found, Predictions):
                row |= next(_rows(found))
            elif masks is not None:
                kept = (
                    name.with_name(f"{name.name}.png") if alike[name.with_suffix("")] > 1 else name.with_suffix(".png")
                )
                row |= {"mask": str(kept), **_kept(found.masks[0], found.confidences[0], found.classes, masks / kept)}
            yield row
        now, done = time.monotonic(), first + batch_size
        if now - said >= EVERY_SECONDS and done < len(paths):
            said, left = now, (now - started) / done * (len(paths) - done)
            log.info("%d of %d images predicted, about %s left", done, len(paths), duration(left))


def _columns(student: LoadedStudent, *, are_masks: bool) -> list[str]:
    first, share = ("mask", "share") if are_masks else ("label", "p")
    return [first, "confidence", *(f"{share}_{name}" for name in student.classes)]


def _read(student: LoadedStudent, paths: Sequence[Path]) -> list[Predictions | Masks | str]:
    """What is said of each file, or why nothing is."""
    files = Files(paths, student.inputs)
    found: list[Predictions | Masks | str] = [""] * len(paths)
    by_shape: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    for place in range(len(paths)):
        try:
            image = files[place]
        except (ValueError, OSError) as error:
            found[place] = " ".join(str(error).split())
            continue
        by_shape.setdefault(image.shape, []).append((place, image))
    for images in by_shape.values():
        said = student.of(torch.stack([image for _, image in images]))
        for number, (place, _) in enumerate(images):
            found[place] = _one(said, number)
    return found


def _one(said: Predictions | Masks, number: int) -> Predictions | Masks:
    if isinstance(said, Masks):
        return Masks([said.masks[number]], [said.confidences[number]], said.classes)
    part = slice(number, number + 1)
    return Predictions(said.numbers[part], said.probabilities[part], said.confidences[part], said.classes)


def _kept(mask: Tensor, confidences: Tensor, classes: Sequence[str], path: Path) -> dict[str, object]:
    """Write the mask of one image, class numbers with a palette; what the table says of it."""
    image = Image.fromarray(mask.numpy())
    image.putpalette(_palette())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
    counts = torch.bincount(mask.flatten().long(), minlength=len(classes)).double() / mask.numel()
    shares = {f"share_{name}": f"{share:.6g}" for name, share in zip(classes, counts.tolist(), strict=True)}
    return {"confidence": f"{float(confidences.mean()):.6g}", **shares}


def _palette() -> list[int]:
    """A colour for each of 256 classes, the first black: the bits of the number spread over red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(value) for value in colours.ravel()]
