"""Made-up images with masks, for smoke runs and tests of segmentation: discs, squares, triangles and rings in noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.contracts import UNLABELED, VOID, Source

_SHAPES_AN_IMAGE = 3


def load(
    input_shape: Sequence[int] = (3, 64, 64),
    num_classes: int = 3,
    train_samples: int = 64,
    test_samples: int = 32,
    noise: float = 0.1,
    void_fraction: float = 0.0,
    unlabeled_fraction: float = 0.0,
    seed: int = 0,
) -> Source:
    """Make a data set, the same at every call.

    Each image has three shapes, later ones over earlier ones, at random places and of random sizes. Class 0 is the
    background; class c >= 1 is a disc, square, triangle or ring (c = 1, 2, 3, 4, 5, ... in turn) of a colour of its
    own, and occurs as often as any other.

    Args:
        input_shape: (C, H, W) of an image.
        num_classes: with the background, >= 2.
        train_samples: how many there are to train on and to validate with.
        test_samples: how many there are to test with.
        noise: standard deviation of the Gaussian noise; black is 0 and white 1.
        void_fraction: in [0, 1), of all pixels, which become `kdexp.contracts.VOID`.
        unlabeled_fraction: in [0, 1), of the training pixels, which become `kdexp.contracts.UNLABELED`.
        seed: of all that is random.

    Returns:
        Images (N, C, H, W) uint8 and masks (N, H, W) int8.

    Raises:
        ValueError: a setting breaks a rule.
    """
    if num_classes < 2:
        raise ValueError(f"dataset.source.num_classes must be >= 2, background and shapes, got {num_classes}")
    for setting, fraction in (("void_fraction", void_fraction), ("unlabeled_fraction", unlabeled_fraction)):
        if not 0 <= fraction < 1:
            raise ValueError(f"dataset.source.{setting} must be in [0, 1), got {fraction}")
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = input_shape
    colours = torch.rand(num_classes, channels, generator=generator)

    def part(samples: int) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(samples, height, width, dtype=torch.int8)
        for layer in range(_SHAPES_AN_IMAGE):
            classes = 1 + (torch.arange(samples) * _SHAPES_AN_IMAGE + layer) % (num_classes - 1)
            covered = _shapes(classes, height, width, generator)
            mask = torch.where(covered, classes.to(torch.int8).view(-1, 1, 1), mask)
        clean = colours[mask.long()].movedim(-1, 1)
        images = clean + noise * torch.randn(clean.shape, generator=generator)
        mask = _marked(mask, VOID, void_fraction, generator)
        return (255 * images).round().clamp(0, 255).to(torch.uint8), mask

    train, train_mask = part(train_samples)
    return Source(train, _marked(train_mask, UNLABELED, unlabeled_fraction, generator), *part(test_samples))


def _shapes(classes: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """(N, H, W) bool: what one shape an image covers; classes (N,) int64."""
    where, size = torch.rand(len(classes), 2, generator=generator), torch.rand(len(classes), generator=generator)
    radius = (min(height, width) * (0.12 + 0.13 * size)).view(-1, 1, 1)
    y = (torch.arange(height).view(1, -1, 1) - (where[:, 0] * height).view(-1, 1, 1)) / radius
    x = (torch.arange(width).view(1, 1, -1) - (where[:, 1] * width).view(-1, 1, 1)) / radius
    distance = x.square() + y.square()
    disc = distance <= 1
    square = torch.maximum(x.abs(), y.abs()) <= 0.9
    triangle = (y <= 1) & (2 * x.abs() <= 1 + y)
    kinds = torch.stack((disc, square, triangle, disc & (distance > 0.3)))
    return kinds[(classes - 1) % len(kinds), torch.arange(len(classes))]


def _marked(mask: Tensor, value: int, fraction: float, generator: torch.Generator) -> Tensor:
    """The mask with a fraction of its pixels, at random, replaced by a value."""
    return mask.masked_fill(torch.rand(mask.shape, generator=generator) < fraction, value)
