"""Noise in single pixels: Hendrycks and Dietterich 2019 (arXiv 1903.12261), make_cifar_c.py and make_imagenet_c.py.

Every channel of every pixel has a noise of its own. Arguments and result are those of `kdexp.robustness`.
"""

from functools import lru_cache

import torch
from torch import Tensor

from kdexp.data.stateless_rng import RngStream, normal, uniform


def gaussian_noise(images: Tensor, index: Tensor, *, seed: int, sigma: float) -> Tensor:
    """Add normal noise of standard deviation sigma: light that is too low."""
    return (images + sigma * _normal_like(images, index, seed, RngStream.GAUSSIAN_NOISE)).clamp_(0, 1)


def speckle_noise(images: Tensor, index: Tensor, *, seed: int, sigma: float) -> Tensor:
    """Add normal noise of standard deviation sigma times the pixel's own value."""
    return (images + sigma * images * _normal_like(images, index, seed, RngStream.SPECKLE_NOISE)).clamp_(0, 1)


def uniform_noise(images: Tensor, index: Tensor, *, seed: int, width: float) -> Tensor:
    """Add noise that is uniform in [-width, width)."""
    return (images + width * (2 * _uniform_like(images, index, seed, RngStream.UNIFORM_NOISE) - 1)).clamp_(0, 1)


def impulse_noise(images: Tensor, index: Tensor, *, seed: int, amount: float) -> Tensor:
    """Salt and pepper: a fraction of the values, amount, becomes 0 or 1, evenly: defective pixels."""
    u = _uniform_like(images, index, seed, RngStream.IMPULSE_NOISE)
    return images.masked_fill(u < amount / 2, 0).masked_fill_(u >= 1 - amount / 2, 1)


def shot_noise(images: Tensor, index: Tensor, *, seed: int, photons: float) -> Tensor:
    """A pixel of value x becomes Poisson(photons * x) / photons: light comes in single photons.

    The images are taken for what a file holds, 8 bits a value; what is between two of those is rounded. The number is
    the quantile, at a uniform random number, of the distribution of its level.
    """
    cumulative = _poisson_table(photons).to(images.device)
    levels, counts = cumulative.shape
    u = _uniform_like(images, index, seed, RngStream.SHOT_NOISE).double()
    level = (images * (levels - 1)).round().to(torch.int64)
    # One sorted sequence of all levels' distributions, one after the other: row r lies in (r, r + 1].
    at = torch.searchsorted(cumulative.flatten(), level + u, right=True)
    return ((at - level * counts).to(images.dtype) / photons).clamp_(0, 1)


@lru_cache(maxsize=16)
def _poisson_table(photons: float) -> Tensor:
    """(256, K) float64: r + P(Poisson(photons * r / 255) <= k)."""
    mean = torch.arange(256, dtype=torch.float64).unsqueeze(1) * photons / 255
    counts = torch.arange(int(photons + 10 * photons**0.5) + 10, dtype=torch.float64)
    cumulative: Tensor = torch.special.gammaincc(counts + 1, mean)
    cumulative[0] = 1  # no light, no photon
    cumulative[:, -1] = 1
    return cumulative + torch.arange(256, dtype=torch.float64).unsqueeze(1)


def _normal_like(images: Tensor, index: Tensor, seed: int, stream: RngStream) -> Tensor:
    return normal(seed, 0, index, images[0].numel(), stream).view_as(images)


def _uniform_like(images: Tensor, index: Tensor, seed: int, stream: RngStream) -> Tensor:
    return uniform(seed, 0, index, images[0].numel(), stream).view_as(images)
