"""What a person has, image files, PIL images, arrays, texts or rows of a table, as a data set would store it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from kdexp.data import image_folder, image_masks
from kdexp.data.table import TableColumn
from kdexp.data.text_table import MOST_CHARACTERS
from kdexp.data.texts import code_points
from kdexp.export.table_files import inputs_of, read_array, read_rows, read_texts

ARRAY = ".npy"
_CHANNELS = (1, 3, 4)

Stored = Tensor | Sequence[Tensor]
"""(N, ...); or one sample each, which may be read when it is wanted; of segmentation they may differ in size."""


@dataclass(frozen=True)
class Inputs:
    """What a network takes.

    Attributes:
        shape: of one sample.
        dtype: in which its data set stores samples: ``uint8``, ``float32``, or ``int32`` for texts.
        any_size: whether images may have another height and width, as of segmentation.
        columns: of the table that the inputs come from, in their order; None: they come from none.
        in_unit_range: whether mean and std are those of images in [0, 1].
    """

    shape: tuple[int, ...]
    dtype: str
    any_size: bool = False
    columns: Sequence[TableColumn] | None = None
    in_unit_range: bool = True

    @property
    def kind(self) -> Literal["texts", "images", "rows"]:
        """What a sample is; rows are arrays of any shape."""
        return "texts" if self.dtype == "int32" else "images" if len(self.shape) == 3 else "rows"

    def stored(self, x: object) -> Stored:
        """Samples as a data set stores them.

        Args:
            x: one sample or a sequence of samples. Images: a path of a file or of a folder, a PIL image, an array or
                tensor (C, H, W), (H, W, C) or, of one channel, (H, W), uint8 in 0..255 or float as the data set has
                them (in [0, 1]); several as (N, ...), too; the path of a npy file with such an array. Texts: str.
                Rows: arrays of floats, mappings column -> value, or the path of a csv, parquet or npy file. An image of
                another size that is no float is scaled and cut as a folder of images is
                (`kdexp.data.image_folder.load`).

        Returns:
            At least one sample.

        Raises:
            ValueError: x is something else; one line.
            FileNotFoundError: there is no such file.
        """
        of_kind = {"texts": self._texts, "images": self._images, "rows": self._rows}[self.kind]
        found = of_kind(x)
        if not len(found):
            raise ValueError("x must hold at least one sample, got none")
        return found

    # Texts

    def _texts(self, x: object) -> Tensor:
        if isinstance(x, Path):
            return self._texts(read_texts(x))
        texts = [x] if isinstance(x, str) else list(x) if isinstance(x, Sequence) else None
        if texts is None or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"x must be a text or a list of texts, got {_described(x)}")
        texts = [text.strip() for text in texts]
        if "" in texts:
            raise ValueError(f"x must have no empty text, got one at {texts.index('')}")
        return code_points(texts, min(max(map(len, texts), default=1), MOST_CHARACTERS))

    # Rows

    def _rows(self, x: object) -> Tensor:
        if isinstance(x, str | Path):
            return read_rows(Path(x), self.columns, self.shape)
        if isinstance(x, Mapping):
            x = [x]
        if isinstance(x, Sequence) and x and all(isinstance(row, Mapping) for row in x):
            return inputs_of(x, self.columns, "x")
        found = _tensor(x)
        rows = found.float() if found.dtype != torch.bool and not found.is_complex() else found
        if tuple(rows.shape) == self.shape:
            rows = rows[None]
        if tuple(rows.shape[1:]) != self.shape or not rows.is_floating_point():
            raise ValueError(f"x must have numbers (N, {', '.join(map(str, self.shape))}), got {_described(found)}")
        return _finite(rows)

    # Images

    def _images(self, x: object) -> Stored:
        if isinstance(x, str | Path):
            path = Path(x)
            if path.suffix == ARRAY:
                return self._of_array(_tensor(read_array(path)), str(path))
            return Files(files_in(path), self)
        if isinstance(x, Image.Image):
            return self.of_image(x, "x")[None]
        if isinstance(x, list | tuple):
            return self._of_list(x)
        return self._of_array(_tensor(x), "x")

    def _of_list(self, x: Sequence[object]) -> Stored:
        if x and all(isinstance(one, str | Path) for one in x):
            return Files([Path(str(one)) for one in x], self)
        found: list[Tensor] = []
        for place, one in enumerate(x):
            images = self._images(one)
            if len(images) != 1:
                raise ValueError(f"x must have one image at each place, got {len(images)} at {place}")
            found.append(images[0])
        return found

    def read(self, path: Path) -> Tensor:
        """One image file, (C, H, W) uint8.

        Raises:
            ValueError: it is none, or cannot be shown; one line.
            FileNotFoundError: there is none.
        """
        if not path.is_file():
            raise FileNotFoundError(f"not found: {path}")
        self._check_uint8(str(path))
        try:
            if self.any_size:
                return self._in_channels(image_masks.read_image(path))
            seen = image_folder.read(path)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("dataset.source has the ")) from error
        return self.of_image(seen, str(path))

    def of_image(self, image: Image.Image, place: str) -> Tensor:
        """One PIL image, likewise.

        Args:
            image: any.
            place: where it comes from, for messages.
        """
        self._check_uint8(place)
        if 0 in image.size:
            raise ValueError(f"{place} must have pixels, got {image.width} x {image.height}")
        if not image_folder.is_shown(image):
            raise ValueError(f"{place} must be an image of 8 or 16 bits a channel, got one of mode {image.mode}")
        if self.any_size:
            if image.mode.startswith("I"):
                raise ValueError(f"{place} must be an image of 8 bits a channel, got one of mode {image.mode}")
            turned = ImageOps.exif_transpose(image) if image.format == "JPEG" else image
            return self._in_channels(TF.pil_to_tensor(turned.convert("RGB")))
        channels, height, width = self.shape
        seen = image_folder.shown(image)
        if channels == 1:
            seen = seen.convert("L")
        elif channels != 3:
            raise ValueError(f"{place} must be an array of {channels} channels, got an image")
        if height == width:
            return image_folder.squared(seen, height)
        if (seen.height, seen.width) != (height, width):
            raise ValueError(f"{place} must have {width} x {height} pixels, got {seen.width} x {seen.height}")
        return torch.as_tensor(TF.pil_to_tensor(seen))

    def _in_channels(self, rgb: Tensor) -> Tensor:
        if self.shape[0] == 3:
            return rgb
        grey = Image.fromarray(rgb.permute(1, 2, 0).contiguous().numpy()).convert("L")
        return torch.as_tensor(TF.pil_to_tensor(grey))

    def _check_uint8(self, place: str) -> None:
        if not self.in_unit_range:
            rule = "must be an array of floats, as those that the network was trained on"
            raise ValueError(f"{place} {rule}, whose mean is no pixel value, got an image of 8 bits")

    def _of_array(self, x: Tensor, place: str) -> Stored:
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(f"{place} must have uint8 in 0..255 or floats, got {_described(x)}")
        images = self._channels_first(x, place)
        fits = images.shape[1] == self.shape[0] if self.any_size else tuple(images.shape[1:]) == self.shape
        if x.dtype == torch.uint8:
            self._check_uint8(place)
            return images if fits else self._of_arrays_as_images(images, place)
        if not fits:
            wanted = [self.shape[0], "height", "width"] if self.any_size else list(self.shape)
            raise ValueError(f"{place} must have floats of shape {wanted}, got {_described(x)}")
        images = _finite(images.float())
        if len(images) and self.dtype == "uint8":
            low, high = (float(end) for end in images.aminmax())
            if 0 <= low <= high <= 1:
                return images
            raise ValueError(f"{place} must have floats in [0, 1] or uint8 in 0..255, got {low:g} to {high:g}")
        return images

    def _of_arrays_as_images(self, images: Tensor, place: str) -> Stored:
        if images.shape[1] not in _CHANNELS:
            raise ValueError(f"{place} must have images of shape {list(self.shape)}, got {list(images.shape[1:])}")
        arrays = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [self.of_image(Image.fromarray(one[..., 0] if one.shape[2] == 1 else one), place) for one in arrays]

    def _channels_first(self, x: Tensor, place: str) -> Tensor:
        """(N, C, H, W) of one or several images."""
        channels, *size = self.shape
        if x.dim() == 2:
            return x[None, None]
        if x.dim() == 3 and channels == 1 and list(x.shape[1:]) == size and list(x.shape) != [1, *size]:
            return x[:, None]
        if x.dim() == 3:
            x = x[None]
        if x.dim() == 4:
            own = [axis for axis in (1, 3) if x.shape[axis] == channels]
            found = own or [axis for axis in (1, 3) if x.shape[axis] in _CHANNELS]
            if found:
                return x.movedim(found[0], 1)
        raise ValueError(f"{place} must be images (N, {', '.join(map(str, self.shape))}), got {_described(x)}")


class Files(Sequence[Tensor]):
    """Image files, each read when it is wanted.

    Args:
        paths: of the files.
        inputs: what becomes of them.
    """

    def __init__(self, paths: Sequence[Path], inputs: Inputs) -> None:
        self.paths, self._inputs = paths, inputs

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """One image, see `Inputs.read`."""
        return self._inputs.read(self.paths[index])


def files_in(path: Path) -> list[Path]:
    """The image files in and below a folder, or the file itself.

    Raises:
        ValueError: it is a file of something else.
        FileNotFoundError: there is none.
    """
    if path.is_file():
        if path.suffix.lower() not in ("", *image_folder.EXTENSIONS):
            rule = (
                "must be an image, a folder of them, or a npy file of images (N, C, H, W): uint8, or floats in [0, 1]"
            )
            raise ValueError(f"x {rule}, got {path}")
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"not found: {path}")
    found = image_folder.image_files(path, defaultdict(list))
    if not found:
        raise FileNotFoundError(f"{path} must hold image files, got none")
    return found


def _tensor(x: object) -> Tensor:
    if isinstance(x, Tensor):
        return x.detach()
    try:
        array = np.array(x)
        if array.dtype.kind in "biuf":
            return torch.from_numpy(array)
    except (TypeError, ValueError, RuntimeError):  # lists of different lengths, tensors elsewhere
        pass
    raise ValueError(f"x must be of what the network was trained on, got {_described(x)}")


def _finite(x: Tensor) -> Tensor:
    broken = ~x.isfinite().flatten(1).all(1)
    if broken.any():
        raise ValueError(f"x must be finite, got NaN or Inf in sample {int(broken.int().argmax())}")
    return x


def _described(x: object) -> str:
    if isinstance(x, Tensor | np.ndarray):
        return f"{str(x.dtype).removeprefix('torch.')} of shape {list(x.shape)}"
    if isinstance(x, list | tuple):
        return f"a {type(x).__name__} of {', '.join(sorted({type(one).__name__ for one in x})[:3]) or 'nothing'}"
    return f"{type(x).__name__}"
