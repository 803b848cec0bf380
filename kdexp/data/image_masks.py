"""Your own images with masks: ``images/`` and ``masks/``, in ``train/``, ``test/`` and ``val/`` or in none of them."""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from kdexp.config.require import is_number, require
from kdexp.contracts import ABSENT, VOID, Source
from kdexp.data import content, own
from kdexp.data.downloads import damaged
from kdexp.data.mask_layouts import LAYOUTS
from kdexp.data.stateless_rng import RngStream, order

log = logging.getLogger(__name__)

_IMAGES = ("PNG", "JPEG")
_EXTENSIONS = (".png", ".jpg", ".jpeg")
_VAL = ("val", "validation", "valid")
_IN_MEMORY = 2 * 2**30  # bytes
_MOST_CLASSES = 127  # masks are int8
_UNKNOWN = 127

_Pairs = dict[Path, Path]
"""Image -> its mask."""


class MaskValues:
    """What the values in mask files mean.

    Args:
        are_colours: whether the masks are RGB; else they are grey or have a palette, and the values are ids.
        classes: id, or colour as one number of 24 bits -> its class, or `kdexp.contracts.VOID`.
    """

    def __init__(self, are_colours: bool, classes: Mapping[int, int]) -> None:
        self.are_colours, self.classes = are_colours, dict(classes)
        self._table = np.full(1 << (24 if are_colours else 16), _UNKNOWN, np.int8)
        for value, number in classes.items():
            self._table[value] = number

    def read(self, path: Path) -> np.ndarray:
        """A mask's classes, (H, W) int8.

        Raises:
            ValueError: the file is damaged or a mask of the other kind, or has a value that is not named.
        """
        values, are_colours = _values_in(path)
        if are_colours != self.are_colours:
            kind = "RGB" if self.are_colours else "grey or with a palette"
            raise ValueError(f"dataset.source.root must have masks of one kind, {kind} as others are, got {path}")
        found: np.ndarray = self._table[values]
        is_unknown = found == _UNKNOWN
        if is_unknown.any():
            value = int(values[is_unknown][0])
            shown = list(value.to_bytes(3)) if are_colours else value
            raise ValueError(
                f"dataset.source.classes must name every {'colour' if are_colours else 'id'} in the masks, or "
                f"dataset.source.ignore, got {shown} in {path}"
            )
        return found


class PaddedImages:
    """Image files as `kdexp.contracts.Images`: RGB, padded with black at the right and bottom.

    Args:
        files: PNG or JPEG.
        size: height and width of the largest.
    """

    def __init__(self, files: Sequence[Path], size: tuple[int, int]) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """One (3, H, W) uint8 image.

        Raises:
            ValueError: the file is damaged.
        """
        pixels = read_image(self.files[index])
        padded = torch.zeros(3, *self.size, dtype=torch.uint8)
        padded[:, : pixels.shape[1], : pixels.shape[2]] = pixels
        return padded

    def fingerprint(self, store: Path) -> str:
        """SHA-256 over the files' contents and the size; see `kdexp.data.content.of_files`."""
        return hashlib.sha256(f"{self.size} {content.of_files(self.files, store)}".encode()).hexdigest()


def load(
    data_dir: own.Folders,
    root: str,
    classes: Mapping[str, Any] | None = None,
    ignore: Any = None,
    preset: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Source:
    """Find images and masks. All masks are read once, so that what is wrong with one is known before the training.

    An image is PNG or JPEG, of 8 bits a channel, anywhere below ``images/``; a JPEG's orientation tag is followed. Its
    mask is the PNG of the same name at the same place below ``masks/``. Images of different sizes are padded at the
    right and bottom.

    With train/, test/ and perhaps val/ (or validation/, or valid/), each with images/ and masks/, each is what its name
    says. With train/ and val/ alone val is tested on. Where there is neither val/ nor test/, or no train/ (images/ and
    masks/ alone), a part is split off at random to test on. Several images of one patient, or of one drive, are then in
    both parts: it is better to make the folders.

    Args:
        data_dir: where `root` is looked for.
        root: the folder, or its absolute path.
        classes: name of a class -> what it is in the masks, in the order of the class numbers, at least two: an id or a
            list of ids in masks that are grey or have a palette; a colour [r, g, b] or a list of colours in RGB masks.
        ignore: ids or colours, likewise, of pixels that become `kdexp.contracts.VOID`; None: there are none.
        preset: cityscapes, camvid, camvid_colours or kitti_road, see `kdexp.data.mask_layouts`: their own folders,
            classes and values to ignore in the place of those above.
        test_fraction: in (0, 1), the fraction that is split off.
        seed: of the choice.

    Returns:
        Images (N, 3, H, W) uint8 and masks (N, H, W) int8. If all together take at most 2 GiB they are in memory; else
        the images are read one at a time (`PaddedImages`), and the masks alone are in memory: a byte a pixel.

    Raises:
        FileNotFoundError: a folder, the images or a mask is missing.
        ValueError: a setting, an image or a mask breaks a rule: one line that names it.
    """
    if (classes is None) == (preset is None) or (preset is not None and (preset not in LAYOUTS or ignore is not None)):
        raise ValueError(
            f"dataset.source must have classes, or preset ({', '.join(LAYOUTS)}) without classes and ignore, got "
            f"classes={classes}, ignore={ignore}, preset={preset}"
        )
    are_named = classes is None or isinstance(classes, Mapping)
    require(are_named, "dataset.source.classes", "must be names with what each is in the masks", classes)
    require(is_number(test_fraction), "dataset.source.test_fraction", "must be in (0, 1)", test_fraction)
    folder = own.located("dataset.source.root", root, data_dir)
    pairs = _find_parts(folder, preset)
    if "test" not in pairs:
        pairs |= _split_off_test(pairs["train"], test_fraction, seed)
    named, void = (LAYOUTS[preset].classes, LAYOUTS[preset].ignore) if preset else (classes or {}, ignore)
    values = _mask_values(named, void, next(iter(pairs["train"].values())))
    size = _checked(pairs, values, list(named))
    counts = ", ".join(f"{len(part):,} {name}" for name, part in pairs.items())
    log.info("%s: %s images of up to %d x %d; classes: %s", folder, counts, *size, own.shown(named))
    fits = 4 * sum(map(len, pairs.values())) * math.prod(size) <= _IN_MEMORY
    parts = {name: _part(part, values, size, fits) for name, part in pairs.items()}
    return Source(*parts["train"], *parts["test"], val=parts.get("val"), classes=list(named))


def _checked(pairs: Mapping[str, _Pairs], values: MaskValues, classes: Sequence[str]) -> tuple[int, int]:
    """Read all masks, and the headers of the images: height and width of the largest."""
    every = {image: mask for part in pairs.values() for image, mask in part.items()}
    sizes, in_training = set(), np.zeros(len(classes), bool)
    measured = content.each(lambda image: _measured(image, every[image], values), list(every), "reading the masks:")
    for image, (size, is_there) in zip(every, measured, strict=True):
        sizes.add(size)
        in_training |= is_there & (image in pairs["train"])
    if not in_training.all():
        missing = classes[int(in_training.argmin())]
        raise ValueError(
            f"dataset.source.classes must be in the training masks, got {missing!r}, which none of the "
            f"{len(pairs['train']):,} has"
        )
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _part(pairs: _Pairs, values: MaskValues, size: tuple[int, int], fits: bool) -> tuple[Tensor | PaddedImages, Tensor]:
    masks = torch.full((len(pairs), *size), ABSENT, dtype=torch.int8)
    for padded, file in zip(masks, pairs.values(), strict=True):
        mask = torch.from_numpy(values.read(file))
        padded[: mask.shape[0], : mask.shape[1]] = mask
    images = PaddedImages(list(pairs), size)
    return (torch.stack([images[i] for i in range(len(images))]) if fits else images), masks


def _split_off_test(pairs: _Pairs, fraction: float, seed: int) -> dict[str, _Pairs]:
    items, size = list(pairs.items()), round(fraction * len(pairs))
    if not 0 < size < len(items):
        rule = "dataset.source.test_fraction must be in (0, 1) and leave images for train and test"
        raise ValueError(f"{rule}, got {fraction} of {len(items)} images")
    shuffled = order(seed, 0, len(items), RngStream.TEST)
    chosen = {"train": shuffled[size:], "test": shuffled[:size]}
    return {name: {items[i][0]: items[i][1] for i in sorted(which.tolist())} for name, which in chosen.items()}


# Finding files


def _find_parts(folder: Path, preset: str | None) -> dict[str, _Pairs]:
    """The images with their masks of train and, where they are there, test and val."""
    if preset is None:
        found = {}
        for part, place in _own(folder).items():
            found[part] = _pairs(folder / place / "images", folder / place / "masks", str)
            _tell_what_is_left_out(folder / place, found[part])
    else:
        layout = LAYOUTS[preset]
        found = {
            part: _pairs(folder / images, folder / masks, layout.mask_of)
            for part, (images, masks) in layout.parts.items()
            if part == "train" or (folder / images).is_dir()
        }
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found


def _own(folder: Path) -> dict[str, str]:
    """Part -> its folder; "" is the folder itself."""
    val = [name for name in _VAL if (folder / name).is_dir()]
    if len(val) > 1:
        rule = f"must have one folder of {', '.join(_VAL)}"
        raise ValueError(f"dataset.source.root {rule}, got {' and '.join(val)} in {folder}")
    if not (folder / "train").is_dir():
        return {"train": ""}
    names = {"train": "train", "val": val[0] if val else "val", "test": "test"}
    return {part: name for part, name in names.items() if (folder / name).is_dir()}


def _pairs(images: Path, masks: Path, mask_of: Callable[[str], str]) -> _Pairs:
    for what, place in (("images", images), ("masks", masks)):
        if not place.is_dir():
            raise FileNotFoundError(f"dataset.source.root must have a folder of {what}, got no {place}")
    files = [path for path in _visible(images) if path.suffix.lower() in _EXTENSIONS]
    found = {path: masks / path.parent.relative_to(images) / f"{mask_of(path.stem)}.png" for path in files}
    if not found:
        raise FileNotFoundError(f"dataset.source.root must have PNG or JPEG images, got none in {images}")
    alone = [image for image, mask in found.items() if not mask.is_file()]
    if alone:
        raise FileNotFoundError(
            f"dataset.source.root must have a mask for each image, got no {found[alone[0]]} for {alone[0].name} "
            f"({len(alone):,} of {len(found):,} images have none)"
        )
    return found


def _tell_what_is_left_out(folder: Path, pairs: _Pairs) -> None:
    for what, place, used in (
        ("files that are no images", "images", set(pairs)),
        ("masks without an image", "masks", set(pairs.values())),
    ):
        if left_out := [str(path.relative_to(folder)) for path in _visible(folder / place) if path not in used]:
            log.warning("warning: dataset.source: %s left out of %s: %s", what, folder, own.shown(left_out))


def _visible(folder: Path) -> list[Path]:
    """All files in and below a folder but hidden ones, in the alphabet's order."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if not any(_is_hidden(part) for part in path.relative_to(folder).parts)]


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


# Reading files


def read_image(path: Path) -> Tensor:
    """An image file, (3, H, W) uint8.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with Image.open(path, formats=_IMAGES) as image:
            if image.mode.startswith("I"):
                raise ValueError(f"it has mode {image.mode} in place of 8 bits a channel")
            if image.format == "JPEG":
                ImageOps.exif_transpose(image, in_place=True)
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # whatever a parser makes of bytes that are not its own
        raise damaged(path, str(error)) from error


def _measured(image: Path, mask: Path, values: MaskValues) -> tuple[tuple[int, int], np.ndarray]:
    """Height and width of an image, and (C,) bool, which classes its mask has."""
    try:
        with Image.open(image, formats=_IMAGES) as opened:
            width, height = opened.size
            mode = opened.mode
            if opened.format == "JPEG" and opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
                width, height = height, width
    except Exception as error:  # whatever a parser makes of bytes that are not its own
        raise damaged(image, str(error)) from error
    if mode.startswith("I"):
        raise ValueError(f"dataset.source.root must have images of 8 bits a channel, got {image} of mode {mode}")
    found = values.read(mask)
    if found.shape != (height, width):
        raise ValueError(
            f"dataset.source.root must have masks of their images' height and width, got {found.shape} in {mask} and "
            f"{(height, width)} in {image.name}"
        )
    count = max(values.classes.values()) + 1
    return (height, width), np.bincount(found.view(np.uint8).ravel(), minlength=256)[:count] > 0


def _values_in(path: Path) -> tuple[np.ndarray, bool]:
    """(H, W) of ids, or of colours as one number each, and whether they are colours."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            array = np.array(image)
            are_colours = image.mode in ("RGB", "RGBA")
    except Exception as error:  # whatever a parser makes of bytes that are not its own
        raise damaged(path, str(error)) from error
    if are_colours:
        red, green, blue = (array[..., channel].astype(np.int32) for channel in range(3))
        return red << 16 | green << 8 | blue, True
    ids = array[..., 0] if array.ndim == 3 else array
    return (ids.astype(np.uint8) if ids.dtype == bool else ids), False


def _mask_values(classes: Mapping[str, Any], ignore: Any, mask: Path) -> MaskValues:
    """What the values of masks mean, in masks of the kind of one of them."""
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise ValueError(f"dataset.source.classes must be 2 to {_MOST_CLASSES}, got {len(classes)}")
    _, are_colours = _values_in(mask)
    meaning: dict[int, int] = {}
    given = [(f"classes.{name}", value, number) for number, (name, value) in enumerate(classes.items())]
    for setting, value, number in [*given, ("ignore", [] if ignore is None else ignore, VOID)]:
        for one in _numbers(f"dataset.source.{setting}", value, are_colours, mask):
            if one in meaning:
                raise ValueError(f"dataset.source.{setting} must be in the masks what no other class is, got {value}")
            meaning[one] = number
    return MaskValues(are_colours, meaning)


def _numbers(setting: str, value: Any, are_colours: bool, mask: Path) -> list[int]:
    """The ids, or the colours as one number each, that a setting names."""
    several = value if isinstance(value, list | tuple) else [value]
    if are_colours:
        colours = [several] if several and not isinstance(several[0], list | tuple) else several
        if all(isinstance(one, list | tuple) and len(one) == 3 and _are_whole(one, 255) for one in colours):
            return [int.from_bytes(one) for one in colours]
    elif _are_whole(several, 65_535):
        return list(several)
    rule = "colours [r, g, b] of 0 to 255, in RGB" if are_colours else "ids, of 0 to 65,535, in grey or palette"
    raise ValueError(f"{setting} must be {rule} masks such as {mask.name}, got {value}")


def _are_whole(values: Sequence[Any], largest: int) -> bool:
    return all(type(one) is int and 0 <= one <= largest for one in values)
