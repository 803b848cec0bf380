"""Images that are moved, turned and bent.

elastic_transform: Hendrycks and Dietterich 2019 (arXiv 1903.12261), make_cifar_c.py. rotate, translate, scale and
shear: Mu and Gilmer 2019, "MNIST-C" (arXiv 1906.02337), corruptions.py; their lengths, in pixels of 28, are fractions
of the side here. Values between pixels are interpolated linearly. Arguments and result are those of `kdexp.robustness`;
or the images are masks, (N, 1, H, W) int64, which are moved as images of the same size, index and seed are: each pixel
gets the nearest one, and `kdexp.contracts.ABSENT` where that lies outside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import ABSENT
from kdexp.data.stateless_rng import RngStream, uniform
from kdexp.robustness.blur import smoothed


def rotate(images: Tensor, index: Tensor, *, seed: int, angle: float) -> Tensor:
    """Turn about the centre by an angle in radians, to either side; what comes in from outside is black."""
    turned = _signs(index, seed)[:, 0] * angle
    cos, sin = turned.cos(), turned.sin()
    return _affine(images, torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2))


def shear(images: Tensor, index: Tensor, *, seed: int, angle: float) -> Tensor:
    """Slant about the centre by an angle in radians, to either side; what comes in from outside is black.

    Heights shrink by the cosine as well, as in scikit-image up to 0.18, with which MNIST-C was made.
    """
    slanted = _signs(index, seed)[:, 0] * angle
    one, zero = torch.ones_like(slanted), torch.zeros_like(slanted)
    return _affine(images, torch.stack((one, -slanted.sin(), zero, slanted.cos()), 1).view(-1, 2, 2))


def scale(images: Tensor, index: Tensor, *, seed: int, factor: float) -> Tensor:
    """Shrink about the centre to factor of the size, in (0, 1]; what comes in from outside is black."""
    return _affine(images, torch.eye(2, device=images.device).expand(len(images), 2, 2) / factor)


def translate(images: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Move by a fraction of the height and of the width, each to either side; what comes in from outside is black."""
    h, w = images.shape[2:]
    moved = _signs(index, seed) * share * torch.tensor([w, h], device=images.device)
    return _affine(images, torch.eye(2, device=images.device).expand(len(images), 2, 2), moved)


def elastic_transform(images: Tensor, index: Tensor, *, seed: int, alpha: float, sigma: float, affine: float) -> Tensor:
    """Bend: an affine map that moves three points a little, and a smooth random displacement of every pixel.

    Simard, Steinkraus and Platt 2003. The published code interpolates twice, here both maps are taken at once. What
    comes in from outside is the image mirrored. All lengths are fractions of the shorter side.

    Args:
        images: see `kdexp.robustness`.
        index: see there.
        seed: see there.
        alpha: the displacements are alpha times noise, uniform in [-1, 1) and then smoothed.
        sigma: of the Gaussian that smooths it, cut off at 3 sigma.
        affine: largest displacement of each coordinate of the three points.
    """
    n, _, h, w = images.shape
    side = min(h, w)
    u = 2 * uniform(seed, 0, index, 6 + 2 * h * w, RngStream.ELASTIC) - 1
    field = side * alpha * smoothed(u[:, 6:].view(n, 2, h, w), side * sigma, truncate=3.0)
    reach = side // 3
    before = torch.tensor([[w // 2, h // 2]], device=images.device) + torch.tensor(
        [[reach, reach], [reach, -reach], [-reach, -reach]], device=images.device
    )
    after = before + side * affine * u[:, :6].view(n, 3, 2)
    # The map takes before to after; a pixel's source is found by the map from after to before.
    ones = torch.ones_like(after[:, :, :1])
    back = torch.linalg.solve(torch.cat((after, ones), 2), before.to(after.dtype).expand(n, 3, 2))
    bent = _pixels(images) + field.movedim(1, -1)
    return _sampled(images, bent @ back[:, None, :2] + back[:, None, None, 2], "reflection")


def _signs(index: Tensor, seed: int) -> Tensor:
    """(N, 2) of -1 and 1."""
    return torch.where(uniform(seed, 0, index, 2, RngStream.AFFINE) < 0.5, -1.0, 1.0)


def _affine(images: Tensor, matrix: Tensor, moved: Tensor | None = None) -> Tensor:
    """Each pixel gets what lies at ``matrix @ (its place - centre) + centre + moved``; places are (x, y)."""
    h, w = images.shape[2:]
    centre = torch.tensor([(w - 1) / 2, (h - 1) / 2], device=images.device)
    sources = (_pixels(images) - centre) @ matrix.transpose(1, 2).unsqueeze(1) + centre
    return _sampled(images, sources if moved is None else sources + moved.view(-1, 1, 1, 2), "zeros")


def _pixels(images: Tensor) -> Tensor:
    """(H, W, 2): the place (x, y) of every pixel."""
    h, w = (torch.arange(size, device=images.device, dtype=torch.float32) for size in images.shape[2:])
    y, x = torch.meshgrid(h, w, indexing="ij")
    return torch.stack((x, y), 2)


def _sampled(images: Tensor, sources: Tensor, outside: str) -> Tensor:
    """Images or masks (N, C, H, W) at places (N, H, W, 2) in pixels."""
    size = torch.tensor([images.shape[3], images.shape[2]], device=images.device)
    grid = (2 * sources + 1) / size - 1
    if not images.is_floating_point():
        shifted = (images - ABSENT).to(grid.dtype)  # grid_sample gives 0 outside, here ABSENT
        found = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return found.to(images.dtype) + ABSENT
    return F.grid_sample(images, grid.to(images.dtype), padding_mode=outside, align_corners=False).clamp_(0, 1)
