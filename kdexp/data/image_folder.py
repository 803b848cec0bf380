"""Your own images: a folder for each class, in ``train/``, ``test/`` and ``val/`` or in none of them.

They are read one at a time, by worker processes, and so may be more than fits in memory. What lies in the folder and is
not used is named in a warning, a line for each reason.
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as TF

from kdexp.contracts import Source
from kdexp.data import content, own
from kdexp.data.downloads import damaged

log = logging.getLogger(__name__)

_VAL = ("val", "validation", "valid")
EXTENSIONS = (*IMG_EXTENSIONS, ".avif", ".gif", ".jfif", ".jp2")
_HIDDEN = (".", "__MACOSX", "@eaDir")  # so begin the names of what programs leave behind

_GREY_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_SHOWN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")

_TEST_FRACTION = 0.2

_NAMED = 5
_LINKS = "links to folders that are read already"

_LeftOut = defaultdict[str, list[Path]]
"""What is not used -> the files or folders of that kind."""

_Found = dict[str, list[Path]]
"""Class -> its image files."""


class ImageFiles:
    """Image files as `kdexp.contracts.Images`: RGB, the shorter side scaled to `size`, the middle square cut out.

    Args:
        files: see `are_images`.
        size: in pixels.
    """

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """One (3, size, size) uint8 image.

        Raises:
            ValueError: the file is damaged.
        """
        return squared(read(self.files[index]), self.size)

    def fingerprint(self, store: Path) -> str:
        """SHA-256 over the files' contents and the size; see `kdexp.data.content.of_files`."""
        return hashlib.sha256(f"{self.size} {content.of_files(self.files, store)}".encode()).hexdigest()


def load(data_dir: own.Folders, root: str, size: int) -> Source:
    """Find the images. The header of each is read; what is broken further on shows when it is read for a batch.

    An image is what a person sees: 16 bits are reduced to their upper 8, as Pillow reduces those of coloured images;
    what is transparent is put on white; an orientation tag (EXIF) is followed; of several frames or pages it is the
    first; CMYK is converted without a colour profile.

    There are three layouts. With train/, test/ and perhaps val/ (or validation/, or valid/) each is what its name says.
    With train/ and val/ alone, ImageNet's, val is tested on. Where there is neither val/ nor test/, or no train/ (a
    flat folder of class folders), a fifth is split off to test on, stratified by class, whatever the seeds are.

    Args:
        data_dir: where `root` is looked for.
        root: the folder, or its absolute path. A class has the name of its folder, and the number of the folder's place
            in the alphabet.
        size: height and width that images are brought to, in pixels.

    Raises:
        FileNotFoundError: a folder is missing, or there is no image to train on.
        ValueError: the parts have not the same classes; there is one class alone; there are two folders for val; an
            image cannot be shown.
    """
    folder = own.located("dataset.source.root", root, data_dir)
    left_out: _LeftOut = defaultdict(list)
    found = _find_parts(folder, left_out)
    for what, paths in left_out.items():
        names = [str(path.relative_to(folder)) for path in paths[:_NAMED]] + ["..."] * (len(paths) > _NAMED)
        log.warning("warning: dataset.source: %s left out: %d (%s)", what, len(paths), ", ".join(names))
    classes = [name for name, files in found["train"].items() if files]
    if not classes:
        raise FileNotFoundError(f"dataset.source.root must have class folders with images in train/, got {folder}")
    for name, part in found.items():
        # A class may have no image to be tested on, but a folder; a folder without images in train/ is no class.
        others = {c for c, files in part.items() if files} - set(classes)
        differing = sorted(others | (set(classes) - set(part)))
        if differing:
            raise ValueError(
                f"dataset.source.root must have the same classes in train/ and {name}/, got {differing} in one only"
            )

    def part_of(name: str) -> tuple[ImageFiles, Tensor]:
        files = [file for c in classes for file in found[name][c]]
        labels = [number for number, c in enumerate(classes) for _ in found[name][c]]
        return ImageFiles(files, size), torch.tensor(labels, dtype=torch.int64)

    parts = {name: part_of(name) for name in found}
    if "test" not in parts:
        setting = "dataset.source.root, of which a fifth is split off to test on,"
        parts |= split_off_test(*parts["train"], _TEST_FRACTION, setting)
    return Source(*parts["train"], *parts["test"], val=parts.get("val"), classes=classes)


def split_off_test(
    images: ImageFiles, target: Tensor, fraction: float, setting: str
) -> dict[str, tuple[ImageFiles, Tensor]]:
    """Train and test of images that come without a test part: see `kdexp.data.own.split_off_test`."""
    parts = own.split_off_test(target, fraction, setting)
    return {
        name: (ImageFiles([images.files[i] for i in part.tolist()], images.size), target[part])
        for name, part in zip(("train", "test"), parts, strict=True)
    }


# Finding files


def _find_parts(folder: Path, left_out: _LeftOut) -> dict[str, _Found]:
    """What is in the folder for train and, where it is there, test and val."""
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset.source.root must be a folder, got the file {folder}")
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    val = [name for name in _VAL if name in names]
    if "train" not in names:
        return {"train": _find_flat(folder, [name for name in names if name in ("test", *val)], left_out)}
    if len(val) > 1:
        rule = f"must have one folder of {', '.join(_VAL)}"
        raise ValueError(f"dataset.source.root {rule}, got {' and '.join(val)} in {folder}")
    roles = {"train": "train"}
    if "test" in names:
        roles |= {"test": "test"} | ({"val": val[0]} if val else {})
    elif val:  # ImageNet's
        roles["test"] = val[0]
        log.info("dataset.source: %s has no test/: its %s/ is tested on, val is split off from train/", folder, val[0])
    else:
        log.info("dataset.source: %s has no test/: a fifth of train/ is split off to test on", folder)
    for path in _visible(folder, left_out):
        if path.is_dir() and path.name not in roles.values():
            left_out["folders besides train, test and val"].append(path)
    return {role: _find(folder / name, left_out) for role, name in roles.items()}


def _find_flat(folder: Path, parts: Sequence[str], left_out: _LeftOut) -> _Found:
    """The classes of a folder that has none for train."""
    if parts:
        raise FileNotFoundError(f"dataset.source.root must have train/ beside {' and '.join(parts)}/, got {folder}")
    found = _find(folder, left_out)
    classes = [name for name, files in found.items() if files]
    if len(classes) < 2:
        had = f"images of {classes[0]!r} alone" if classes else "none"
        raise FileNotFoundError(
            f"dataset.source.root must have train/ and test/, or folders of images for at least two classes, got {had} "
            f"in {folder}"
        )
    log.info(
        "dataset.source: %s has no train/: its folders are the %d classes, a fifth of their images is tested on",
        folder,
        len(classes),
    )
    return found


def _find(part: Path, left_out: _LeftOut) -> _Found:
    """The classes of train/, test/ or val/ by name, in alphabetical order, with their images."""
    above = _places(part)
    paths: dict[str, list[Path]] = {}
    for path in _visible(part, left_out):
        if not path.is_dir():
            left_out["files outside of class folders"].append(path)
        elif os.path.realpath(path) in above:
            left_out[_LINKS].append(path)
        else:
            paths[path.name] = image_files(path, left_out)
    whole = are_images([path for files in paths.values() for path in files])
    found: _Found = {name: [] for name in paths}
    for name, files in paths.items():
        for path in files:
            (found[name] if next(whole) else left_out["broken files"]).append(path)
        if not found[name]:
            left_out["class folders without images"].append(part / name)
    return found


def image_files(folder: Path, left_out: defaultdict[str, list[Path]]) -> list[Path]:
    """The image files in and below a folder, in torchvision's order; no folder is read twice.

    Args:
        folder: of a class, or of images without classes.
        left_out: gets what is not used -> the files or folders of that kind.
    """
    read, folders = _places(folder), [folder]
    found: list[Path] = []
    while folders:
        for path in _visible(folders.pop(), left_out):
            if not path.is_dir():
                is_image = path.suffix.lower() in EXTENSIONS
                (found if is_image else left_out["files that are not images"]).append(path)
            elif (real := os.path.realpath(path)) in read:
                left_out[_LINKS].append(path)
            else:
                read.add(real)
                folders.append(path)
    return sorted(found, key=lambda path: (str(path.parent), path.name))


def _places(folder: Path) -> set[str]:
    """Where a folder really lies, and those around it."""
    real = Path(os.path.realpath(folder))
    return {str(place) for place in (real, *real.parents)}


def _visible(folder: Path, left_out: _LeftOut) -> list[Path]:
    """What lies in a folder, by name, without what is hidden."""
    paths = sorted(folder.iterdir())
    hidden = [path for path in paths if path.name.startswith(_HIDDEN)]
    if hidden:
        left_out["hidden files and folders"] += hidden
    return [path for path in paths if not path.name.startswith(_HIDDEN)]


# Reading files


def are_images(paths: Sequence[Path]) -> Iterator[bool]:
    """Whether each of many files is an image by its header; see `is_image`."""
    return content.each(is_image, paths, "reading the headers of the images:")


def is_image(file: Path | IO[bytes]) -> bool:
    """Whether a file is an image by its header.

    Raises:
        ValueError: it cannot be known which of its values is black, and which white.
    """
    try:
        with opened(file) as image:
            can_be_shown, mode = is_shown(image), image.mode
    except Exception:  # whatever a parser makes of bytes that are not its own
        return False
    if not can_be_shown:
        raise ValueError(f"dataset.source.root must hold images of 8 or 16 bits a channel, got {file} of mode {mode}")
    return True


def is_shown(image: Image.Image) -> bool:
    """Whether it is known which values of an image are black and white: it has 8 or 16 bits a channel."""
    if image.mode == "I":  # 32 bits; or 16, of a PGM, and of a PNG where Pillow is older
        return image.format in ("PPM", "PNG")
    return image.mode in (*_GREY_16_BITS, *_SHOWN)


def opened(file: Path | IO[bytes]) -> Image.Image:
    """A file as any image but PostScript, which Pillow gives to another program (Ghostscript) to run."""
    Image.init()
    return Image.open(file, formats=[name for name in Image.OPEN if name != "EPS"])


def read(path: Path) -> Image.Image:
    """An image file as `shown`.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with opened(path) as image:
            if not is_shown(image):
                raise ValueError(f"it has mode {image.mode} in place of 8 or 16 bits a channel")
            return shown(image)
    except Exception as error:  # whatever a parser makes of bytes that are not its own
        raise damaged(path, str(error)) from error


def shown(image: Image.Image) -> Image.Image:
    """An image as `load` describes it, of 8 bits a channel in RGB.

    Args:
        image: see `is_shown`.
    """
    turned = image
    image.load()
    with suppress(Exception):  # a tag that cannot be read turns nothing
        turned = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode in _GREY_16_BITS:
        return _upper_bits(turned, image).convert("RGB")
    if turned.has_transparency_data:
        white = Image.new("RGBA", turned.size, "white")
        return Image.alpha_composite(white, turned.convert("RGBA")).convert("RGB")
    return turned.convert("RGB")


def squared(image: Image.Image, size: int) -> Tensor:
    """(channels, size, size) uint8: the shorter side scaled to `size`, the middle square cut out."""
    cut = TF.center_crop(TF.resize(image, [size]), [size, size])
    return cast(Tensor, TF.pil_to_tensor(cut))


def _upper_bits(image: Image.Image, of: Image.Image) -> Image.Image:
    bits, zero_is_white = 16, False
    if isinstance(of, TiffImageFile):
        (bits,) = of.tag_v2[ExifTags.Base.BitsPerSample]
        zero_is_white = of.tag_v2[ExifTags.Base.PhotometricInterpretation] == 0
    values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - values if zero_is_white else values)
