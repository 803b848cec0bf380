"""Augmentation of images together with their masks.

The transforms are called as those of `kdexp.data.augment`, ``transform(batch, seed=..., epoch=...)``, and what they do
to a sample is a function of (seed, epoch, the sample's id and itself) alone, as there. A batch has images (N, C, H, W)
and masks (N, H, W). The mask is moved as the image is: images are interpolated bilinearly, masks take the nearest
pixel, and what comes in from outside is black, and `kdexp.contracts.ABSENT` in the mask. ``moves_masks = True`` says
that: a transform without it is refused for masks, and one with it for other targets.

Rotating and scaling cost most and are cheaper after cropping; the corners that they invent are then inside of the image
that the crop is from.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import ABSENT, Batch
from kdexp.data.stateless_rng import RngStream, uniform


class Crop:
    """Cut a window out of each image, some of them around foreground.

    nnU-Net's sampling (Isensee et al. 2021, Nature Methods 18, 203-211): of a class drawn evenly among those in the
    mask but 0, a pixel is drawn, and the window laid around it. nnU-Net does this to the last third of a batch, here
    each sample is chosen on its own. All other windows, and those of masks without foreground, are equally likely.

    An image that is smaller than the window is padded at the right and bottom.

    Args:
        size: height and width of the window in pixels, >= 1.
        foreground: in [0, 1], the share of windows that are laid around foreground.
    """

    moves_pixels = moves_masks = True

    def __init__(self, size: Sequence[int], foreground: float = 1 / 3) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"augment: size of Crop must be height and width, each >= 1, got {list(size)}")
        if not 0 <= foreground <= 1:
            raise ValueError(f"augment: foreground of Crop must be in [0, 1], got {foreground}")
        self.size, self.foreground = tuple(size), foreground

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Cut one window out of each image and out of its mask."""
        _check_masks(self, batch)
        height, width = self.size
        images, masks = _padded(batch.inputs, height, width, 0), _padded(batch.target, height, width, ABSENT)
        room = torch.tensor(images.shape[2:], device=images.device) - torch.tensor(self.size, device=images.device)
        u = uniform(seed, epoch, batch.index, 5, RngStream.FOREGROUND_CROP)
        corner = (u[:, :2] * (room + 1)).long()
        around = (u[:, 2] < self.foreground).nonzero().squeeze(1)
        if len(around):
            pixel, exists = _foreground_pixels(masks[around], u[around, 3:])
            middle = torch.tensor([height // 2, width // 2], device=images.device)
            laid = (pixel - middle).clamp(min=torch.zeros_like(room), max=room)
            corner[around] = torch.where(exists.unsqueeze(1), laid, corner[around])
        cut = _windows(masks.unsqueeze(1), corner, height, width).squeeze(1)
        return replace(batch, inputs=_windows(images, corner, height, width), target=cut)


class HorizontalFlip:
    """Mirror half of the images left to right; the same ones as `kdexp.data.augment.HorizontalFlip`."""

    moves_pixels = moves_masks = True

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Mirror each image and its mask or leave both."""
        _check_masks(self, batch)
        return _mirrored(batch, uniform(seed, epoch, batch.index, 1, RngStream.FLIP)[:, 0] < 0.5, -1)


class VerticalFlip:
    """Mirror half of the images top to bottom."""

    moves_pixels = moves_masks = True

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Mirror each image and its mask or leave both."""
        _check_masks(self, batch)
        return _mirrored(batch, uniform(seed, epoch, batch.index, 1, RngStream.VERTICAL_FLIP)[:, 0] < 0.5, -2)


class Rotate:
    """Turn each image about its centre by an angle of its own, to either side.

    Args:
        degrees: in (0, 180], the largest angle; all up to it are equally likely, and 180 is any angle at all.
    """

    moves_masks = True

    def __init__(self, degrees: float) -> None:
        if not 0 < degrees <= 180:
            raise ValueError(f"augment: degrees of Rotate must be in (0, 180], got {degrees}")
        self.degrees = degrees

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Turn each image and its mask."""
        _check_masks(self, batch)
        share = 2 * uniform(seed, epoch, batch.index, 1, RngStream.ROTATION)[:, 0] - 1
        angle = share * math.radians(self.degrees)
        return _resampled(batch, angle.cos(), angle.sin())


class Scale:
    """Enlarge or shrink each image about its centre by a factor of its own; its size in pixels stays.

    Args:
        low: > 0, the least factor; below 1 the image shrinks.
        high: >= low, the largest; between the two, factors are drawn evenly in the logarithm. nnU-Net: 0.7 and 1.4.
    """

    moves_masks = True

    def __init__(self, low: float, high: float) -> None:
        if not 0 < low <= high < math.inf:
            raise ValueError(f"augment: low and high of Scale must be 0 < low <= high, got {low} and {high}")
        self.low, self.high = low, high

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Enlarge or shrink each image and its mask."""
        _check_masks(self, batch)
        share = uniform(seed, epoch, batch.index, 1, RngStream.SCALE)[:, 0]
        inverse = torch.exp(-math.log(self.low) - share * math.log(self.high / self.low))
        return _resampled(batch, inverse, torch.zeros_like(inverse))


def _check_masks(transform: object, batch: Batch) -> None:
    name = type(transform).__name__
    images, masks = list(batch.inputs.shape[1:]), list(batch.target.shape[1:])
    if len(images) != 3:
        raise ValueError(f"augment: {name} needs images (C, H, W), got inputs of shape {images}")
    if masks != images[1:]:
        raise ValueError(f"augment: {name} needs masks {images[1:]}, as its images are, got targets of shape {masks}")


def _padded(x: Tensor, height: int, width: int, value: int) -> Tensor:
    """(..., H, W), at least of a height and a width."""
    missing = [0, max(0, width - x.shape[-1]), 0, max(0, height - x.shape[-2])]
    return F.pad(x, missing, value=value) if any(missing) else x  # without, F.pad would copy all


def _foreground_pixels(masks: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A foreground pixel of each mask.

    Args:
        masks: (N, H, W) int64.
        u: (N, 2) in [0, 1), which choose class and pixel.

    Returns:
        (N, 2) int64 row and column, and (N,) bool, whether there is one.
    """
    n, height = masks.shape[:2]
    known = masks.clamp(min=0)
    classes = int(known.max()) + 1
    lines = torch.arange(n * height, device=masks.device).view(n, height, 1)
    pixels = torch.bincount((known + lines * classes).view(-1), minlength=n * height * classes)
    pixels = pixels.view(n, height, classes)  # of each class in each row
    is_there = pixels.sum(1) > 0
    is_there[:, 0] = False
    # Of classes, rows and pixels, the first up to which there are more than were drawn.
    number = is_there.sum(1)
    drawn = (u[:, 0] * number).long()
    chosen = (is_there.cumsum(1) > drawn.unsqueeze(1)).int().argmax(1)
    sample = torch.arange(n, device=masks.device)
    up_to = pixels[sample, :, chosen].cumsum(1)
    drawn = (u[:, 1] * up_to[:, -1]).long()
    row = (up_to > drawn.unsqueeze(1)).int().argmax(1)
    drawn = drawn - up_to[sample, row] + pixels[sample, row, chosen]
    in_row = masks[sample, row] == chosen.unsqueeze(1)
    column = (in_row.cumsum(1) > drawn.unsqueeze(1)).int().argmax(1)
    return torch.stack((row, column), 1), number > 0


def _windows(x: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """(N, C, height, width) of x (N, C, H, W), each at its corner, (N, 2) int64 row and column."""
    n, c, h, w = x.shape
    # Rows of the window's width that lie together: copied a row at a time, which is fastest on a CPU.
    planes = torch.arange(n * c, device=x.device).view(n, c, 1) * (h * w)
    lines = (corner[:, :1] + torch.arange(height, device=x.device)) * w + corner[:, 1:]
    rows = x.reshape(-1).unfold(0, width, 1).index_select(0, (planes + lines.unsqueeze(1)).view(-1))
    return rows.view(n, c, height, width)


def _mirrored(batch: Batch, which: Tensor, axis: int) -> Batch:
    images = torch.where(which.view(-1, 1, 1, 1), batch.inputs.flip(axis), batch.inputs)
    masks = torch.where(which.view(-1, 1, 1), batch.target.flip(axis), batch.target)
    return replace(batch, inputs=images, target=masks)


def _resampled(batch: Batch, cos: Tensor, sin: Tensor) -> Batch:
    """Images and masks at other places: x cos + y sin and y cos - x sin from the centre for (x, y), each (N,)."""
    height, width = batch.inputs.shape[2:]
    cos, sin = cos.view(-1, 1, 1), sin.view(-1, 1, 1)
    y = torch.arange(height, device=cos.device).view(1, -1, 1) - (height - 1) / 2
    x = torch.arange(width, device=cos.device).view(1, 1, -1) - (width - 1) / 2
    grid = torch.stack(((x * cos + y * sin) * (2 / width), (y * cos - x * sin) * (2 / height)), 3)
    # All that is in a mask is above 0 here, which is what grid_sample gives outside.
    shifted = (batch.target.to(grid.dtype) - ABSENT + 1).unsqueeze(1)
    found = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    target = ((found.squeeze(1) - 1).clamp(min=0) + ABSENT).to(batch.target.dtype)
    # Between a border pixel's middle and the border there is no second neighbour: it is not mixed with black.
    images = F.grid_sample(
        batch.inputs, grid.to(batch.inputs.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return replace(batch, inputs=images * (found > 0), target=target)
