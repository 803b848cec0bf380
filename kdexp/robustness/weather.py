"""Fog and spatter: Hendrycks and Dietterich 2019 (arXiv 1903.12261), make_cifar_c.py and make_imagenet_c.py.

Arguments and result are those of `kdexp.robustness`.
"""

from torch import Tensor

from kdexp.data.stateless_rng import RngStream, normal, uniform
from kdexp.robustness.blur import smoothed

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in a grey image (ITU-R BT.601)


def fog(images: Tensor, index: Tensor, *, seed: int, amount: float, decay: float) -> Tensor:
    """Add amount times a fractal cloud, and scale such that the brightest value stays what it was.

    Args:
        images: see `kdexp.robustness`.
        index: see there.
        seed: see there.
        amount: of fog, where the cloud is densest.
        decay: how much smaller the cloud's details are from each scale to the next finer one.
    """
    brightest = images.amax((1, 2, 3), keepdim=True)
    size = 1 << (max(images.shape[2:]) - 1).bit_length()
    cloud = _plasma(uniform(seed, 0, index, size * size, RngStream.FOG), size, decay)
    cloud = cloud[:, None, : images.shape[2], : images.shape[3]]
    return ((images + amount * cloud) * (brightest / (brightest + amount))).clamp_(0, 1)


def _plasma(u: Tensor, size: int, decay: float) -> Tensor:
    """Height maps in [0, 1] by the diamond-square algorithm on a torus, (N, size, size).

    Each point is a quarter of the sum of four around it, plus noise of ``wibble^2 * U(-1, 1)``, as in the published
    code (Fournier, Fussell and Carpenter 1982, "Computer Rendering of Stochastic Models").

    Args:
        u: (N, size * size) uniform random numbers.
        size: a power of two.
        decay: what wibble is divided by from each scale to the next.
    """
    height = u.new_zeros(len(u), size, size)
    used, step, wibble = 0, size, 100.0

    def wibbled(total: Tensor) -> Tensor:
        nonlocal used
        count = total[0].numel()
        noise = u[:, used : used + count].view_as(total)
        used += count
        return total / 4 + wibble**2 * (2 * noise - 1)

    while step >= 2:
        half = step // 2
        corners = height[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        height[:, half::step, half::step] = wibbled(pairs + pairs.roll(-1, 2))
        middle = height[:, half::step, half::step]
        height[:, ::step, half::step] = wibbled(middle + middle.roll(1, 1) + corners + corners.roll(-1, 2))
        height[:, half::step, ::step] = wibbled(middle + middle.roll(1, 2) + corners + corners.roll(-1, 1))
        step, wibble = half, wibble / decay
    height -= height.amin((1, 2), keepdim=True)
    return height / height.amax((1, 2), keepdim=True).clamp(min=1e-12)


def spatter(
    images: Tensor,
    index: Tensor,
    *,
    seed: int,
    loc: float,
    scale: float,
    sigma: float,
    threshold: float,
    mix: float,
    mud: bool,
) -> Tensor:
    """Drops of water or of mud on the lens.

    They lie where smoothed normal noise exceeds a threshold. Mud is as published. Water is the noise there, brought to
    [0, mix]; the published relief of its edges (Canny's detector, distances to them, equalised) is left out.

    Args:
        images: see `kdexp.robustness`.
        index: see there.
        seed: see there.
        loc: mean of the noise.
        scale: its standard deviation.
        sigma: pixels, of the Gaussian that smooths it.
        threshold: see above.
        mix: opacity of water; pixels by which the edge of mud is smoothed.
        mud: or water.
    """
    n, _, h, w = images.shape
    noise = normal(seed, 0, index, h * w, RngStream.SPATTER).view(n, 1, h, w)
    liquid = smoothed(loc + scale * noise, sigma)
    liquid = liquid.masked_fill(liquid < threshold, 0)
    if not mud:
        opacity = mix * liquid / liquid.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
        return (images + opacity * _colour(_WATER, images)).clamp_(0, 1)
    opacity = smoothed((liquid > threshold).to(images.dtype), mix)
    opacity = opacity.masked_fill(opacity < 0.8, 0)
    return (images * (1 - opacity) + opacity * _colour(_MUD, images)).clamp_(0, 1)


def _colour(rgb: tuple[float, float, float], images: Tensor) -> Tensor:
    """(3, 1, 1) for images in colour, (1, 1, 1) for others."""
    if images.shape[1] == 3:
        return images.new_tensor(rgb).view(3, 1, 1)
    return images.new_tensor(sum(weight * value for weight, value in zip(_LUMA, rgb, strict=True))).view(1, 1, 1)
