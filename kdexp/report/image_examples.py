"""A few test images with what networks make of them, and images that they make up, as a run keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdexp.atomic import atomic_path
from kdexp.report.example_files import NETWORKS, packed_arrays, read_file, with_control

FILE = "images.npz"
MOST, LARGEST_SIDE = 8, 512
"""Images that a run keeps, and the pixels of a side; a run of larger ones keeps none."""


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """n images, each array (n, C, H, W) uint8; with three channels RGB, else the mean of the channels is shown.

    Attributes:
        images: of test.
        rebuilt: name of a network -> what it makes of them.
        sampled: name of a network -> what it decodes from the same points, drawn from N(0, I).
    """

    images: np.ndarray
    rebuilt: Mapping[str, np.ndarray]
    sampled: Mapping[str, np.ndarray]

    def shows_the_same_as(self, other: "ImageExamples") -> bool:
        """Whether the test images are those of another run, whatever the networks make of them."""
        return np.array_equal(self.images, other.images)

    def with_control(self, control: "ImageExamples") -> "ImageExamples":
        """With another run's student as the control, between teacher and student."""
        rebuilt, sampled = (
            with_control(own, others)
            for own, others in ((self.rebuilt, control.rebuilt), (self.sampled, control.sampled))
        )
        return replace(self, rebuilt=rebuilt, sampled=sampled)


def write(examples: ImageExamples, folder: Path) -> None:
    """Write `FILE`: ``images``, and ``NETWORK_rebuilt`` and ``NETWORK_sampled`` of each network."""
    arrays = {"images": examples.images}
    for kind, of in (("rebuilt", examples.rebuilt), ("sampled", examples.sampled)):
        arrays |= {f"{name}_{kind}": images for name, images in of.items()}
    with atomic_path(folder / FILE) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def read(folder: Path) -> ImageExamples | None:
    """The examples of a run; None where it has no such file.

    Raises:
        ValueError: the file is damaged, or holds something else; one line.
    """
    return read_file(folder, FILE, "example images", _loaded)


def _loaded(path: Path) -> ImageExamples:
    of_teacher, of_student = ([f"{name}_{kind}" for kind in ("rebuilt", "sampled")] for name in NETWORKS)
    found = packed_arrays(path, ["images", *of_student], of_teacher)
    shape = found["images"].shape
    fits = len(shape) == 4 and 1 <= shape[0] <= MOST and 0 not in shape and max(shape[1:]) <= LARGEST_SIDE
    for name, array in found.items():
        if not fits or array.dtype != np.uint8 or array.shape != shape:
            rule = f"1 to {MOST} of (C, H, W) uint8, at most {LARGEST_SIDE} a side"
            raise ValueError(f"{name} must be {rule}, got {array.shape} {array.dtype}")
    there = [name for name in NETWORKS if f"{name}_rebuilt" in found and f"{name}_sampled" in found]
    rebuilt, sampled = ({name: found[f"{name}_{kind}"] for name in there} for kind in ("rebuilt", "sampled"))
    return ImageExamples(found["images"], rebuilt, sampled)
