"""Test images with masks for pictures, and what the networks predict for them while they are evaluated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import Batch, Kind, Split
from kdexp.metrics.rows import decisions
from kdexp.report.mask_examples import LARGEST_SIDE, MOST, MaskExample, write


class MaskCollector:
    """Keeps a few images of a split, see `spread`, with the masks that are predicted for them.

    Args:
        split: with masks for targets.
        kind: how logits are read.
    """

    def __init__(self, split: Split, kind: Kind) -> None:
        self._split, self._kind = split, kind
        self._places = {int(split.index[place]): place for place in spread(split.target, MOST)}
        self._predicted: dict[int, dict[str, np.ndarray]] = {}

    def __call__(self, batch: Batch, logits: Tensor, teacher_logits: Tensor | None) -> None:
        """See `kdexp.metrics.evaluate.Watcher`: keep the masks of those of the images that are in the batch."""
        given = ({"teacher": teacher_logits} if teacher_logits is not None else {}) | {"student": logits}
        for row, sample in enumerate(batch.index.tolist()):
            if sample in self._places:
                size = batch.target.shape[1:]
                masks = {name: decisions(of[row : row + 1], self._kind).view(size) for name, of in given.items()}
                self._predicted[sample] = {name: _small_mask(mask) for name, mask in masks.items()}

    def save(self, folder: Path) -> list[MaskExample]:
        """The images that were evaluated, those with the least foreground first; kept in the run folder, too.

        Large ones are made smaller.
        """
        found = [
            MaskExample(
                sample,
                _small_image(self._split.inputs[sample]),
                _small_mask(self._split.target[place]),
                self._predicted[sample],
            )
            for sample, place in self._places.items()
        ]
        write(found, folder)
        return found


def spread(target: Tensor, count: int) -> list[int]:
    """Places of images from little to much foreground, so that the choice shows rare and common cases.

    The images are sorted by the share of their labelled pixels that are not of class 0, and taken from the middle of so
    many equal parts. No network has a part in it: all runs on the same data show the same images.

    Args:
        target: (N, H, W) masks.
        count: at most; fewer where there are fewer images.
    """
    share = [float((mask > 0).sum()) / max(int((mask >= 0).sum()), 1) for mask in target]
    order = sorted(range(len(share)), key=share.__getitem__)
    count = min(count, len(order))
    return [order[(2 * part + 1) * len(order) // (2 * count)] for part in range(count)]


def _small_image(image: Tensor) -> np.ndarray:
    """(C, H, W) uint8 with one channel or three."""
    shown = image.float()
    if image.is_floating_point():  # as stored: of any range
        shown = (shown - shown.min()) * (255 / (shown.max() - shown.min()).clamp(min=1e-12))
    if len(shown) != 3:
        shown = shown.mean(0, keepdim=True)
    size = _small(image.shape[1:])
    if size != list(image.shape[1:]):
        shown = F.interpolate(shown[None], size, mode="bilinear", antialias=True)[0]
    return shown.round().clamp(0, 255).byte().cpu().numpy()


def _small_mask(mask: Tensor) -> np.ndarray:
    """(H, W) int16: of a larger mask evenly spaced pixels, since a mean of classes is none."""
    small = F.interpolate(mask[None, None].float(), _small(mask.shape), mode="nearest-exact")
    return small[0, 0].to(torch.int16).cpu().numpy()


def _small(size: Sequence[int]) -> list[int]:
    scale = min(1.0, LARGEST_SIDE / max(size))
    return [max(round(scale * side), 1) for side in size]
