"""Gray values made black or white once and for all: static binarisation (Salakhutdinov and Murray 2008)."""

import torch
from torch import Tensor

from kdexp.data.stateless_rng import RngStream, uniform

_AT_ONCE = 1024  # images whose random numbers are held


def binarized(images: Tensor, seed: int, part: int) -> Tensor:
    """Each pixel white with the probability that its gray value is.

    Args:
        images: (N, ...) uint8 in 0..255, or float in [0, 1].
        seed: of the choice.
        part: number of the part of the data set: others are drawn in each.

    Returns:
        The same shape and type, all 0 and 255 (1 of floats).
    """
    found = torch.empty_like(images)
    white = 1 if images.is_floating_point() else 255
    parts = (torch.split(each, _AT_ONCE) for each in (torch.arange(len(images)), images, found))
    for index, image, out in zip(*parts, strict=True):
        drawn = uniform(seed, part, index, image[0].numel(), RngStream.BINARIZED).view(image.shape)
        out.copy_((drawn * white < image) * white)
    return found
