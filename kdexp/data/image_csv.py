"""Your own images by a table: a csv file with a file name and labels in each row, above all several labels an image."""

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from kdexp.contracts import Source
from kdexp.data import csv_file, own
from kdexp.data.image_folder import ImageFiles, are_images, split_off_test
from kdexp.data.label_columns import targets_of

log = logging.getLogger(__name__)


def load(
    file: str,
    label: str | Sequence[str],
    image: str,
    data_dir: own.Folders = ".",
    folder: str | None = None,
    val: str | None = None,
    test: str | None = None,
    test_fraction: float = 0.2,
    size: int = 224,
) -> Source:
    """Read the table and the headers of its images; see `kdexp.data.image_folder.load` for what an image is.

    Args:
        file: csv file of the training images, and of those that are split off from them.
        label: the column with the classes, as words or whole numbers; or several columns of 0 and 1 (true and false),
            for a multi-label task.
        image: the column with the images' file names.
        data_dir: where files and folders are looked for.
        folder: that of the images; None: that of the csv file.
        val: csv file of the images to choose by; None: split off by `make_splits`.
        test: csv file of the images to test on; None: split off, stratified by class.
        test_fraction: in (0, 1), the fraction of `file` that is split off.
        size: height and width that images are brought to, in pixels.

    Raises:
        FileNotFoundError: a csv file or an image is missing.
        ValueError: a setting, a column, a cell or an image breaks a rule: one line that names it.
    """
    labels = [label] if isinstance(label, str) else list(label)
    given = {"file": file, "val": val, "test": test}
    paths = {part: own.located(f"dataset.source.{part}", path, data_dir) for part, path in given.items() if path}
    header = csv_file.header_of(paths["file"])
    for setting, names in (("image", [image]), ("label", labels)):
        own.check_columns(f"dataset.source.{setting}", names, header, paths["file"])
    files = {part: csv_file.read(path, [], [image, *labels], []) for part, path in paths.items()}
    targets, classes = targets_of(files, labels, several=not isinstance(label, str))
    place = own.located("dataset.source.folder", folder, data_dir) if folder else None
    parts: dict[str, tuple[ImageFiles, Tensor]] = {
        "train" if part == "file" else part: (_images(one, image, place or one.path.parent, size), targets[part])
        for part, one in files.items()
    }
    if test is None:
        parts |= split_off_test(*parts["train"], test_fraction, "dataset.source.test_fraction")
    sizes = ", ".join(f"{len(target):,} {part}" for part, (_, target) in parts.items())
    kind = f"classes of {label}" if isinstance(label, str) else "labels"
    log.info("%s: %s images; %d %s: %s", paths["file"], sizes, len(classes), kind, own.shown(classes))
    return Source(*parts["train"], *parts["test"], val=parts.get("val"), classes=own.names_worth_telling(classes))


def _images(file: csv_file.File, image: str, folder: Path, size: int) -> ImageFiles:
    column = file.columns[image]
    at = [f"line {line} of {file.path.name}" for line in column.lines]
    if column.is_missing.any():
        raise ValueError(
            f"dataset.source.image must be given in each row, got none in {at[int(column.is_missing.argmax())]}"
        )
    paths = [folder / str(name) for name in column.values]
    for path, where in zip(paths, at, strict=True):
        if not path.is_file():
            raise FileNotFoundError(f"dataset.source.image: not found: {path} ({where})")
    for path, is_image, where in zip(paths, are_images(paths), at, strict=True):
        if not is_image:
            raise ValueError(f"dataset.source.image must name whole images, got {path} ({where})")
    return ImageFiles(paths, size)
