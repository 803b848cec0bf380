"""Large images in overlapping tiles (Ronneberger et al. 2015, "U-Net", arXiv 1505.04597, figure 2)."""

from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Tiles(NamedTuple):
    """How large images are cut: see `tiled`."""

    size: int
    overlap: int


def evaluate_in_tiles(network: nn.Module, tiles: Tiles) -> None:
    """From now on a network of segmentation sees larger images tile by tile in eval mode; see `tiled`.

    In training mode it runs as before. Features that hooks read of a larger image are those of its last tile. A copy of
    the network does the same.
    """
    network.tiles = tiles  # type: ignore[assignment]
    network.forward = MethodType(_forward, network)


def _forward(network: nn.Module, images: Tensor) -> Tensor:
    whole: Callable[[Tensor], Tensor] = partial(type(network).forward, network)
    return whole(images) if network.training else tiled(whole, images, *network.tiles)  # type: ignore[misc]


def tiled(network: Callable[[Tensor], Tensor], images: Tensor, tile: int, overlap: int) -> Tensor:
    """Run a network of segmentation tile by tile, so that its memory does not grow with the image.

    Neighbouring tiles overlap, and each gives the logits of its own half of the overlap: none are averaged, and none
    stand at a cut, where the network sees less than in the whole image. Tiles begin every ``tile - overlap`` pixels
    from the left and the top; the last ones end with the image, and may be smaller.

    The logits are those of the whole image if a logit depends on no pixel further than ``overlap // 2`` from it, and if
    the network sees the tiles as it sees the image: one that halves it k times needs ``tile`` and ``overlap`` to be
    multiples of 2^k. (A `kdexp.models.unet.UNet` sees ``7 * 2^depth - 5`` pixels far: depth 3 needs an overlap of 104.)
    With a smaller overlap they are close to them, but for networks that average over the image.

    Args:
        network: (N, C, h, w) to logits (N, classes, h, w), for any size; in eval mode, where images do not depend on
            each other.
        images: (N, C, H, W).
        tile: height and width of the tiles; an image that is not larger is one tile.
        overlap: of two neighbours, in pixels.

    Returns:
        (N, classes, H, W).

    Raises:
        ValueError: a tile below 1, an overlap outside [0, tile), or a network whose logits have another size.
    """
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be in [0, tile), tile being {tile}, got {overlap}")
    height, width = images.shape[-2:]
    rows, columns = list(_cuts(height, tile, overlap)), list(_cuts(width, tile, overlap))
    strips = [torch.cat([_part(network, images, row, column) for column in columns], 3) for row in rows]
    return torch.cat(strips, 2)


class _Cut(NamedTuple):
    """A tile in one direction: pixels first..end are seen, and own_first..own_end of them kept."""

    first: int
    end: int
    own_first: int
    own_end: int


def _cuts(size: int, tile: int, overlap: int) -> Iterator[_Cut]:
    step, margin = tile - overlap, overlap // 2
    first, own_first = 0, 0
    while first + tile < size:
        own_end = first + step + margin
        yield _Cut(first, first + tile, own_first, own_end)
        first, own_first = first + step, own_end
    yield _Cut(first, size, own_first, size)


def _part(network: Callable[[Tensor], Tensor], images: Tensor, row: _Cut, column: _Cut) -> Tensor:
    seen = images[..., row.first : row.end, column.first : column.end]
    logits = network(seen)
    if logits.shape[2:] != seen.shape[2:]:
        raise ValueError(f"logits must have the size of their tile, {tuple(seen.shape[2:])}, got {tuple(logits.shape)}")
    rows = slice(row.own_first - row.first, row.own_end - row.first)
    return logits[..., rows, column.own_first - column.first : column.own_end - column.first]
