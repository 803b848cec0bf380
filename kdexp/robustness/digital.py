"""What files and screens do: Hendrycks and Dietterich 2019 (arXiv 1903.12261), make_cifar_c.py.

No random numbers are used. Arguments and result are those of `kdexp.robustness`.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def pixelate(images: Tensor, index: Tensor, *, seed: int, scale: float) -> Tensor:
    """Reduce to scale times the height and width (rounded down) and enlarge again, with Pillow's box filter."""
    rows, columns = (_pixelated(size, scale).to(images) for size in images.shape[2:])
    return rows @ images @ columns.T


@lru_cache(maxsize=32)
def _pixelated(size: int, scale: float) -> Tensor:
    """(size, size): both steps along one axis."""
    fewer = max(int(size * scale), 1)
    ratio = size / fewer
    middles = (torch.arange(fewer).unsqueeze(1) + 0.5) * ratio
    distance = (torch.arange(size) + 0.5 - middles) / ratio
    inside = ((distance > -0.5) & (distance <= 0.5)).float()
    reduced = inside / inside.sum(1, keepdim=True)
    nearest = ((torch.arange(size) + 0.5) / ratio).long()
    return reduced[nearest]


def jpeg_compression(images: Tensor, index: Tensor, *, seed: int, quality: int) -> Tensor:
    """Through Pillow's JPEG and back; (N, 1 or 3, H, W). This is done on the CPU, image by image."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = []
    for image in pixels.squeeze(3) if pixels.shape[3] == 1 else pixels:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    read = torch.from_numpy(np.stack(decoded)).to(images.device, images.dtype) / 255
    return read.unsqueeze(1) if read.dim() == 3 else read.permute(0, 3, 1, 2).contiguous()
