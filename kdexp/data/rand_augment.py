"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) as a transform of whole batches; see `kdexp.data.augment`."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from kdexp.contracts import Batch
from kdexp.data.augment import images_of
from kdexp.data.stateless_rng import RngStream, uniform

_STRONGEST = 30


class RandAugment:
    """Do to each image a few operations that are drawn from fourteen, all of one strength.

    Operations and strengths are torchvision's, after AutoAugment's: nothing, shear and translation in x and y,
    rotation, brightness, colour, contrast, sharpness, posterize, solarize, autocontrast, equalize. Those that have a
    direction go either way half of the time, what comes in from outside is black, and pixels are not interpolated.

    They are defined for bytes: images in [0, 1] are rounded to 1/255.

    Args:
        num_ops: >= 1, operations one after the other, each drawn evenly from all.
        magnitude: in [0, 30], their strength. 30 is a shear by 0.3, a translation by 45 % of the side, 30 degrees,
            factors of 0.1 or 1.9, 4 bits, all inverted.
    """

    moves_pixels = True  # bytes in, bytes out

    def __init__(self, num_ops: int = 2, magnitude: float = 9) -> None:
        if num_ops < 1:
            raise ValueError(f"augment: num_ops of RandAugment must be at least 1, got {num_ops}")
        if not 0 <= magnitude <= _STRONGEST:
            raise ValueError(f"augment: magnitude of RandAugment must be in [0, {_STRONGEST}], got {magnitude}")
        self.num_ops, self.strength = num_ops, magnitude / _STRONGEST

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Do to each image its own operations."""
        given = images_of(self, batch)
        if given.shape[1] not in (1, 3):
            raise ValueError(f"augment: RandAugment needs images of 1 or 3 channels, got {given.shape[1]}")
        is_bytes = given.dtype == torch.uint8
        images = given.clone() if is_bytes else (given * 255).round().clamp(0, 255).to(torch.uint8)
        u = uniform(seed, epoch, batch.index, 2 * self.num_ops, RngStream.RAND_AUGMENT)
        drawn = 2 * (u[:, ::2] * len(_OPERATIONS)).long() + (u[:, 1::2] < 0.5)
        for each in drawn.cpu().unbind(1):  # on the CPU, so that a GPU waits once and not for each operation
            for number in sorted(set(each.tolist())):
                rows = (each == number).nonzero().squeeze(1).to(images.device)
                strength = -self.strength if number % 2 else self.strength
                images[rows] = _OPERATIONS[number // 2](images[rows], strength)
        return replace(batch, inputs=images if is_bytes else (images / 255).to(given.dtype))


def _affine(images: Tensor, *, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
    """Shift, or shear by the tangents of angles with the upper left corner fixed."""
    degrees = [math.degrees(math.atan(each)) for each in shear]
    moved: Tensor = F.affine(images, angle=0, translate=list(shift), scale=1, shear=degrees, center=[0, 0])
    return moved


_TRANSLATION = 150 / 331  # pixels of the size that AutoAugment was made for, as a part of the side

_OPERATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda images, by: images,
    lambda images, by: _affine(images, shear=(0.3 * by, 0)),
    lambda images, by: _affine(images, shear=(0, 0.3 * by)),
    lambda images, by: _affine(images, shift=(int(_TRANSLATION * images.shape[3] * by), 0)),
    lambda images, by: _affine(images, shift=(0, int(_TRANSLATION * images.shape[2] * by))),
    lambda images, by: F.rotate(images, 30 * by),
    lambda images, by: F.adjust_brightness(images, 1 + 0.9 * by),
    lambda images, by: F.adjust_saturation(images, 1 + 0.9 * by),
    lambda images, by: F.adjust_contrast(images, 1 + 0.9 * by),
    lambda images, by: F.adjust_sharpness(images, 1 + 0.9 * by),
    lambda images, by: F.posterize(images, 8 - round(4 * abs(by))),
    lambda images, by: F.solarize(images, 255 - 255 * abs(by)),
    lambda images, by: F.autocontrast(images),
    lambda images, by: F.equalize(images),
)
"""Of images (N, C, H, W) uint8 and a strength in [-1, 1]; those without a direction take its size."""
