"""Brightness, contrast and saturation: Hendrycks and Dietterich 2019 (arXiv 1903.12261), make_cifar_c.py.

No random numbers are used. Arguments and result are those of `kdexp.robustness`; a grey image is one whose channels are
all the same.
"""

import torch
from torch import Tensor


def brightness(images: Tensor, index: Tensor, *, seed: int, added: float) -> Tensor:
    """Add to the value of HSV, the largest of a pixel's channels, and keep hue and saturation."""
    value = images.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    # Black has no hue: it becomes grey.
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-12)), brighter)


def contrast(images: Tensor, index: Tensor, *, seed: int, factor: float) -> Tensor:
    """Shrink the distances from the mean of each channel of each image to factor of themselves."""
    mean = images.mean((2, 3), keepdim=True)
    return ((images - mean) * factor + mean).clamp_(0, 1)


def saturate(images: Tensor, index: Tensor, *, seed: int, factor: float, added: float) -> Tensor:
    """Change the saturation S of HSV to factor * S + added, in [0, 1], and keep hue and value; (N, 3, H, W) only.

    Grey has no hue; as in the published code it counts as red.
    """
    value = images.amax(1, keepdim=True)
    below = value - images  # in each channel a fraction of value * S, the largest of them
    chroma = below.amax(1, keepdim=True)
    saturation = chroma / value.clamp(min=1e-12)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device, dtype=images.dtype).view(3, 1, 1)
    share = torch.where(chroma > 0, below / chroma.clamp(min=1e-12), red)
    return value * (1 - (factor * saturation + added).clamp(0, 1) * share)
