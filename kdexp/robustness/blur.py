"""Blur: Hendrycks and Dietterich 2019 (arXiv 1903.12261), their make_cifar_c.py and make_imagenet_c.py.

What lies outside an image is its nearest pixel. Arguments and result are those of `kdexp.robustness`.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.data.stateless_rng import RngStream, uniform


def gaussian_blur(images: Tensor, index: Tensor, *, seed: int, sigma: float) -> Tensor:
    """Average over a Gaussian of sigma pixels, cut off at 4 sigma."""
    return smoothed(images, sigma)


def defocus_blur(images: Tensor, index: Tensor, *, seed: int, radius: float, softness: float) -> Tensor:
    """Average over a disk: a lens out of focus.

    Args:
        images: see `kdexp.robustness`, as for the next two.
        index: has no part in it.
        seed: likewise.
        radius: of the disk, in pixels.
        softness: standard deviation in pixels of the Gaussian, 3 x 3 (5 x 5 from a radius of 8 on), that smooths it.
    """
    kernel = _disk(radius, softness).to(images)
    pad = kernel.shape[0] // 2
    padded = F.pad(images, [pad] * 4, mode="replicate").flatten(0, 1).unsqueeze(1)
    return F.conv2d(padded, kernel[None, None]).view_as(images)


def motion_blur(images: Tensor, index: Tensor, *, seed: int, radius: int, sigma: float) -> Tensor:
    """Average along a line that begins at the pixel, at a random angle within 45 degrees of the horizontal.

    As ImageMagick's ``motion-blur`` does it, which made the published sets: whole pixels, with the weights of half a
    Gaussian.

    Args:
        images: see `kdexp.robustness`.
        index: see there.
        seed: see there.
        radius: of the line, in pixels: it has 2 radius + 1 points.
        sigma: of the Gaussian, in pixels.
    """
    weights = torch.exp(-0.5 * (torch.arange(2 * radius + 1) / sigma) ** 2)
    weights = weights[weights > 1e-7 * weights.sum()]  # less is lost in float32
    angle = (uniform(seed, 0, index, 1, RngStream.MOTION_BLUR).squeeze(1) - 0.5) * (math.pi / 2)
    reach = len(weights) - 1
    windows = _windows(images, reach)
    sample = torch.arange(len(images), device=images.device)
    blurred = torch.zeros_like(images)
    for step, weight in enumerate((weights / weights.sum()).tolist()):
        down, right = (torch.ceil(step * f(angle) - 0.5).long() for f in (torch.sin, torch.cos))
        blurred += weight * windows[sample, :, reach + down, reach + right]
    return blurred


def zoom_blur(images: Tensor, index: Tensor, *, seed: int, count: int, step: float) -> Tensor:
    """Average of the image with count enlargements of it, about its centre, by 1, 1 + step, 1 + 2 step, ...

    The published code enlarges a crop of whole pixels, so that on small images several factors give the same; here
    every factor is exact.
    """
    total = images.clone()
    for number in range(count):
        rows, columns = (_zoom(size, 1 + number * step).to(images) for size in images.shape[2:])
        total += rows @ images @ columns.T
    return total / (count + 1)


def glass_blur(images: Tensor, index: Tensor, *, seed: int, sigma: float, max_delta: int, iterations: int) -> Tensor:
    """Pixels change places with others near them, between two Gaussian blurs: frosted glass.

    As published, each pixel not too near the border changes places once in an iteration with another, up to max_delta
    rows and columns before it or max_delta - 1 after it. There they do so one after the other, from the last to the
    first; here those whose neighbourhoods have nothing in common do so at once, and (2 max_delta)^2 such sets take
    turns.

    Args:
        images: see `kdexp.robustness`.
        index: see there.
        seed: see there.
        sigma: of the blurs, in pixels.
        max_delta: see above.
        iterations: how often.
    """
    blurred = smoothed(images, sigma).flatten(2)
    place = _shuffled(images, index, seed, max_delta, iterations)
    moved = blurred.gather(2, place.unsqueeze(1).expand_as(blurred)).view_as(images)
    return smoothed(moved, sigma)


def smoothed(images: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Average over a Gaussian of sigma pixels, cut off at truncate * sigma; (..., H, W)."""
    rows, columns = (_gaussian(size, sigma, truncate).to(images) for size in images.shape[-2:])
    return rows @ images @ columns.T


# These are separable or small: a matrix for each axis, (size, size), acts on all images at once.


@lru_cache(maxsize=64)
def _gaussian(size: int, sigma: float, truncate: float) -> Tensor:
    reach = int(truncate * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2) if reach else torch.ones(1)
    sources = (torch.arange(size).unsqueeze(1) + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add(1, sources, (weights / weights.sum()).expand(size, -1))


@lru_cache(maxsize=256)
def _zoom(size: int, factor: float) -> Tensor:
    """Linear interpolation at the points that an enlargement about the centre brings to each pixel."""
    middle = (size - 1) / 2
    points = (torch.arange(size, dtype=torch.float64) - middle) / factor + middle
    below = points.floor().long().clamp(0, max(size - 2, 0))
    share = points - below
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_add(1, below.unsqueeze(1), 1 - share.unsqueeze(1))
    above = (below + 1).clamp(max=size - 1)
    return matrix.scatter_add(1, above.unsqueeze(1), share.unsqueeze(1)).float()


@lru_cache(maxsize=16)
def _disk(radius: float, softness: float) -> Tensor:
    reach = math.floor(radius) + (1 if radius <= 8 else 2)
    axis = torch.arange(-reach, reach + 1)
    inside = (axis**2 + axis.unsqueeze(1) ** 2 <= radius**2).float()
    taps = torch.arange(-1, 2) if radius <= 8 else torch.arange(-2, 3)
    gaussian = torch.exp(-0.5 * (taps / softness) ** 2)
    kernel = torch.outer(gaussian, gaussian)[None, None] / gaussian.sum() ** 2
    return F.conv2d(inside[None, None] / inside.sum(), kernel, padding="same")[0, 0]


def _windows(images: Tensor, reach: int) -> Tensor:
    """(N, C, 2 reach + 1, 2 reach + 1, H, W): a view of the images moved by up to reach pixels each way."""
    h, w = images.shape[2:]
    return F.pad(images, [reach] * 4, mode="replicate").unfold(2, h, 1).unfold(3, w, 1)


def _shuffled(images: Tensor, index: Tensor, seed: int, delta: int, iterations: int) -> Tensor:
    """Which pixel, (N, H W) int64, each pixel of a sample gets its values from."""
    n, _, h, w = images.shape
    place = torch.arange(h * w, device=images.device).repeat(n, 1)
    u = uniform(seed, 0, index, iterations * 2 * h * w, RngStream.GLASS_BLUR).view(n, iterations, 2, h, w)
    offsets = (u * (2 * delta)).long() - delta
    # Only pixels from which every partner lies inside the image.
    rows, columns = (torch.arange(delta, size - delta + 1, device=images.device) for size in (h, w))
    for iteration in range(iterations):
        for down in range(2 * delta):
            for right in range(2 * delta):
                y, x = torch.meshgrid(rows[down :: 2 * delta], columns[right :: 2 * delta], indexing="ij")
                one = (y * w + x).reshape(1, -1).expand(n, -1)
                other = ((y + offsets[:, iteration, 0, y, x]) * w + x + offsets[:, iteration, 1, y, x]).flatten(1)
                here, there = place.gather(1, one), place.gather(1, other)
                place.scatter_(1, other, here)
                place.scatter_(1, one, there)
    return place
