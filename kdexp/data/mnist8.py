"""MNIST in the format of scikit-learn's digits: 8 x 8 grey, 10 classes, 60,000 / 10,000 (two domains, one task)."""

import torch
from torch import Tensor

from kdexp.contracts import Source
from kdexp.data import mnist

_INK = 64  # strokes are then as thick as in the digits: the mean brightness is 0.304, and theirs 0.306


def load(data_dir: str, download: bool = False) -> Source:
    """Load MNIST's official train and test parts and reduce each image as the digits were reduced.

    The makers of the digits (Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits") took bitmaps of
    32 x 32 in which the character fills the height, and counted the black pixels in blocks of 4 x 4: 0..16. Here a
    pixel of MNIST is ink from 64 of 255 on. The square around the ink, centred on its bounding box and as large as the
    longer side of it, is sampled at 32 x 32 points, each taking the nearest pixel. Ink is counted in blocks of 4 x 4,
    and the count scaled to bytes like that of `kdexp.data.digits`: 0 -> 0, 8 -> 128, 16 -> 255. Ink is bright in both.

    MNIST's characters fill 20 of 28 rows: to average whole images in blocks would leave them five or six pixels high,
    where the digits are eight. What still differs is the writers, and the width: MNIST's characters keep the
    proportions they were written in (6.5 pixels on average), those of the digits are narrower (5.6).

    Args:
        data_dir: the folder that torchvision's ``MNIST`` calls root.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: the files are not there, and download is off.
        ValueError: a file is damaged.
        ConnectionError: the download failed.
    """
    source = mnist.load(data_dir, download)
    assert isinstance(source.train_inputs, Tensor)
    assert isinstance(source.test_inputs, Tensor)
    return Source(reduced(source.train_inputs), source.train_target, reduced(source.test_inputs), source.test_target)


def reduced(images: Tensor) -> Tensor:
    """(N, 1, H, W) uint8 images, each with some ink -> (N, 1, 8, 8) uint8; see `load`."""
    ink = images[:, 0] >= _INK
    rows, columns = ink.any(2), ink.any(1)
    side = torch.maximum(_extent(rows)[1], _extent(columns)[1])
    # How often each row and column of the image is sampled by each of the eight blocks; small whole numbers are exact.
    counts = _samples(rows, side) @ ink.float() @ _samples(columns, side).transpose(1, 2)
    return ((counts.long() * 255 + 8) // 16).to(torch.uint8).unsqueeze(1)


def _extent(inked: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the middle of what is inked, and its length; (N, n) bool -> (N,) and (N,)."""
    first = inked.int().argmax(1)
    end = inked.shape[1] - inked.flip(1).int().argmax(1)
    return first + end, end - first


def _samples(inked: Tensor, side: Tensor) -> Tensor:
    """How many of a block's four sampling points fall on each pixel, along one axis: (N, 8, n)."""
    middle, _ = _extent(inked)
    # Point p of 32 lies at middle / 2 + (2 p - 31) / 64 * side.
    points = (middle[:, None] * 32 + (2 * torch.arange(32) - 31) * side[:, None]) // 64
    return (points.unsqueeze(2) == torch.arange(inked.shape[1])).float().view(-1, 8, 4, inked.shape[1]).sum(2)
