"""A few test images with their masks and those that the networks predict, as a run keeps them in its folder.

The folder may be somebody else's: sizes are checked before anything is unpacked, and nothing in the file is executed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdexp.atomic import atomic_path
from kdexp.report.example_files import NETWORKS, packed_arrays, read_file, with_control

FILE = "examples.npz"
MOST, LARGEST_SIDE = 4, 512
"""Images that a run keeps, and the pixels of their longer side; larger ones are made smaller."""
_LEAST = -3  # `kdexp.contracts.ABSENT`, which needs torch


@dataclass(frozen=True, eq=False)
class MaskExample:
    """An image with its masks.

    Attributes:
        sample: its number in the test data.
        image: (C, H, W) uint8: with three channels RGB, else the mean of the channels is shown.
        truth: (H, W) class numbers; negative where there is no label.
        predictions: name of a network -> its class numbers (H, W); every example of a picture has the same names.
    """

    sample: int
    image: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]

    def shows_the_same_as(self, other: "MaskExample") -> bool:
        """Whether image and truth are those of another example, whatever the networks predict."""
        pairs = ((self.image, other.image), (self.truth, other.truth))
        return self.sample == other.sample and all(np.array_equal(own, others) for own, others in pairs)

    def with_control(self, control: "MaskExample") -> "MaskExample":
        """With the control's mask between the teacher's and the student's."""
        return replace(self, predictions=with_control(self.predictions, control.predictions))


def write(examples: Sequence[MaskExample], folder: Path) -> None:
    """Write `FILE`: ``sample`` (n,), ``image`` (n, C, H, W) uint8, and (n, H, W) int16 ``truth`` and each network's.

    Args:
        examples: at least one, all of one size.
        folder: of the run.
    """
    arrays = {
        "sample": np.array([example.sample for example in examples]),
        "image": np.stack([example.image for example in examples]),
        "truth": np.stack([example.truth for example in examples]),
        **{name: np.stack([e.predictions[name] for e in examples]) for name in examples[0].predictions},
    }
    with atomic_path(folder / FILE) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def read(folder: Path, classes: int) -> list[MaskExample]:
    """The examples of a run; none where it has no such file.

    Args:
        folder: of the run.
        classes: how many the data set has.

    Raises:
        ValueError: the file is damaged, or holds something else; one line.
    """
    return read_file(folder, FILE, "example masks", lambda path: _loaded(path, classes)) or []


def _loaded(path: Path, classes: int) -> list[MaskExample]:
    found = packed_arrays(path, ("sample", "image", "truth", "student"), ("teacher",))
    _check(found, classes)
    masks = {name: found[name] for name in NETWORKS if name in found}
    return [
        MaskExample(
            int(sample), found["image"][row], found["truth"][row], {name: mask[row] for name, mask in masks.items()}
        )
        for row, sample in enumerate(found["sample"])
    ]


def _check(found: Mapping[str, np.ndarray], classes: int) -> None:
    shape = found["image"].shape
    if found["image"].dtype != np.uint8 or len(shape) != 4 or not 1 <= shape[0] <= MOST or 0 in shape:
        raise ValueError(f"image must be 1 to {MOST} of (C, H, W) uint8, got {shape} {found['image'].dtype}")
    if max(shape[2:]) > LARGEST_SIDE:
        raise ValueError(f"image must have at most {LARGEST_SIDE} pixels a side, got {shape[2:]}")
    shapes = {"sample": shape[:1]} | {name: (shape[0], *shape[2:]) for name in found if name not in ("sample", "image")}
    for name, wanted in shapes.items():
        array = found[name]
        if array.dtype.kind != "i" or array.shape != wanted:
            raise ValueError(f"{name} must be whole numbers of shape {wanted}, got {array.shape} {array.dtype}")
        least = _LEAST if name == "truth" else 0
        if name != "sample" and not least <= array.min() <= array.max() < classes:
            raise ValueError(f"{name} must be in {least}..{classes - 1}, got {array.min()}..{array.max()}")
