"""CHASE_DB1: retinal vessels of children, 28 images of both eyes of 14, 960 x 999 RGB, two classes, 16 / 4 / 8.

Fraz et al. 2012, "An Ensemble Classification-Based Approach Applied to Retinal Blood Vessel Segmentation", IEEE TBME
59(9). The masks of the first observer are the truth.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdexp.config.require import is_count, require
from kdexp.contracts import ABSENT, Source
from kdexp.data.downloads import damaged

_PARTS = {"train": range(1, 9), "val": range(9, 11), "test": range(11, 15)}  # patients, of two images each
_SIZE = (960, 999)  # height and width
_BLACK = 20


def load(data_dir: str, tile: int | None = None) -> Source:
    """Load images and masks. They are split by patient: a patient's two eyes are in one part.

    With `tile` the images of train and val are cut into overlapping tiles, as few as cover them: an epoch then has more
    than 16 samples, and val can be a part of 4 images. Those of test stay whole.

    The last 8 images are those that are usually tested on. Of the first 20 the last 4 are the validation part.

    The data set has no masks of the camera's round field of view. A pixel is in it where its brightest channel is above
    20 of 255. The black around it is not all 0, as JPEG is not exact: above 10 there are up to 209 specks of it in an
    image, above 20 at most 12, of 21 pixels together. Dark retina sets the other limit: above 30 an image has holes of
    up to 432 pixels, above 20 of at most 20.

    Args:
        data_dir: the folder in which the folder CHASE_DB1 lies.
        tile: height and width of the tiles of train and val, in [1, 960]; None: whole images.

    Returns:
        Images (N, 3, 960, 999) uint8 (or tiles), masks (N, 960, 999) int8: 0 background, 1 vessel,
        `kdexp.contracts.ABSENT` outside the field of view, where the observer has drawn up to 363 pixels of an image's
        vessels.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is damaged, or a tile is larger than the images.
    """
    fits = tile is None or (is_count(tile) and tile <= min(_SIZE))
    require(fits, "dataset.source.tile", f"must be null or in [1, {min(_SIZE)}]", tile)
    parts = {name: _part(Path(data_dir) / "CHASE_DB1", patients) for name, patients in _PARTS.items()}
    if tile is not None:
        parts |= {name: (_tiles(parts[name][0], tile), _tiles(parts[name][1], tile)) for name in ("train", "val")}
    return Source(*parts["train"], *parts["test"], val=parts["val"], classes=["background", "vessel"])


def _tiles(x: Tensor, size: int) -> Tensor:
    """(N * tiles, ..., size, size) of x (N, ..., H, W), an image's after each other, spread evenly."""
    corners = [torch.linspace(0, length - size, -(-length // size)).long().tolist() for length in x.shape[-2:]]
    cut = [x[..., top : top + size, left : left + size] for top in corners[0] for left in corners[1]]
    return torch.stack(cut, 1).flatten(0, 1)


def _part(folder: Path, patients: range) -> tuple[Tensor, Tensor]:
    names = [f"Image_{patient:02}{eye}" for patient in patients for eye in "LR"]
    images = torch.stack([_read(folder / f"{name}.jpg", "RGB") for name in names]).permute(0, 3, 1, 2).contiguous()
    vessels = torch.stack([_read(folder / f"{name}_1stHO.png", "1") for name in names])
    masks = vessels.to(torch.int8)
    return images, masks.masked_fill_(images.amax(1) <= _BLACK, ABSENT)


def _read(path: Path, mode: str) -> Tensor:
    """(H, W) or (H, W, 3)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"data_dir must hold CHASE_DB1/Image_01L.jpg, Image_01L_1stHO.png ... Image_14R_1stHO.png, got no {path}: "
            "set data_dir or KDEXP_DATA_DIR; the files are at https://blogs.kingston.ac.uk/retinal/chasedb1"
        )
    advice = "unpack it again"
    try:
        with Image.open(path) as image:
            array = np.array(image.convert(mode))
    except Exception as error:  # whatever a parser makes of bytes that are not its own
        raise damaged(path, advice) from error
    if array.shape[:2] != _SIZE:
        raise damaged(path, f"{advice}, its height and width are {array.shape[:2]} and not {_SIZE}")
    return torch.from_numpy(array)
