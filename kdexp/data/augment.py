"""Augmentation of whole batches on their own device.

A transform is called as ``transform(batch, seed=..., epoch=...)`` with inputs in [0, 1] that are not yet normalised,
and returns a new batch. What it does to a sample is a function of (seed, epoch, the sample's id): it does not depend on
the batch's size or composition, on workers or ranks. (`Mixup` and `CutMix` are the exceptions.)

One with ``moves_pixels = True`` is also called with uint8 images, which it gives back as such: it moves a quarter of
the bytes then.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import UNLABELED, Batch
from kdexp.data.stateless_rng import RngStream, uniform


class RandomCrop:
    """Shift images by up to `padding` pixels each way; what comes in from outside is black.

    Args:
        padding: pixels, >= 0. 4 at 32 x 32 is the usual recipe for CIFAR (He et al. 2016, section 4.2).
    """

    moves_pixels = True

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Shift each image by its own whole number of pixels."""
        images = images_of(self, batch)
        offset = (uniform(seed, epoch, batch.index, 2, RngStream.CROP) * (2 * self.padding + 1)).long()
        n, c, h, w = images.shape
        padded = F.pad(images, [self.padding] * 4)
        # Rows of w pixels that lie together, wherever they begin: copied a row at a time, which is fastest on a CPU.
        plane, line = padded.shape[2] * padded.shape[3], padded.shape[3]
        planes = torch.arange(n * c, device=images.device).view(n, c, 1) * plane
        lines = (offset[:, :1] + torch.arange(h, device=images.device)) * line + offset[:, 1:]
        rows = padded.reshape(-1).unfold(0, w, 1).index_select(0, (planes + lines.unsqueeze(1)).view(-1))
        return replace(batch, inputs=rows.view(n, c, h, w))


class HorizontalFlip:
    """Mirror half of the images left to right."""

    moves_pixels = True

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Mirror each image or leave it."""
        images = images_of(self, batch)
        mirrored = uniform(seed, epoch, batch.index, 1, RngStream.FLIP)[:, 0] < 0.5
        chosen = torch.arange(len(images), device=images.device) + len(images) * mirrored
        return replace(batch, inputs=torch.cat([images, images.flip(3)]).index_select(0, chosen))


class Cutout:
    """Cover a square around a random pixel (DeVries and Taylor 2017, arXiv:1708.04552, section 3).

    The square is cut off where it leaves the image.

    Args:
        size: side of the square in pixels; 16 for CIFAR-10 and 8 for CIFAR-100 in the paper.
        fill: value for each channel, in [0, 1]; the data set's mean is the paper's 0 after normalisation.
    """

    def __init__(self, size: int, fill: Sequence[float]) -> None:
        self.size, self.fill = size, list(fill)

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Cover one square of each image."""
        images = images_of(self, batch)
        square = _box(images, uniform(seed, epoch, batch.index, 2, RngStream.CUTOUT), (self.size, self.size))
        fill = images.new_tensor(self.fill).view(-1, 1, 1)
        return replace(batch, inputs=torch.where(square, fill, images))


class RandomResizedCrop:
    """Cut out a random part and enlarge it to the image's size, bilinearly (Szegedy et al. 2015, section 6).

    Args:
        scale: least and largest fraction of the area, in (0, 1].
        ratio: least and largest width / height of the part, as a fraction of the image's own; evenly in the logarithm.
    """

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)) -> None:
        self.scale, self.ratio = tuple(scale), tuple(ratio)

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Cut a part out of each image."""
        images = images_of(self, batch)
        u = uniform(seed, epoch, batch.index, 4, RngStream.RESIZED_CROP)
        area = self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0])
        low, high = (math.log(bound) for bound in self.ratio)
        stretch = torch.exp((low + u[:, 1] * (high - low)) / 2)
        # Sides as a fraction of the image's; a part that would be longer than the image is as long as the image.
        size = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp(max=1)
        centre = (2 * u[:, 2:] - 1) * (1 - size)  # x, y in [-1, 1], where the image reaches from -1 to 1
        affine = torch.cat([torch.diag_embed(size), centre.unsqueeze(2)], 2).to(images.dtype)
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        return replace(batch, inputs=F.grid_sample(images, grid, padding_mode="border", align_corners=False))


class Mixup:
    """Mix each sample with the one before it in the batch, inputs and labels alike (Zhang et al. 2018, equation 1).

    The fraction of a sample is a function of (seed, epoch, id) as everywhere, but its partner depends on who else is in
    the batch: mixup is the same in two runs only with the same batches. Under several ranks, partners are of one rank.

    An unlabelled sample brings no label. A mixed class label is float32 (N, C) and sums to the labelled fraction.
    With one logit or several labels (sigmoid tasks) a part of a label has no meaning: if a partner has none, the mix
    has none.

    Args:
        alpha: > 0, of the distribution Beta(alpha, alpha) from which a sample's own share is drawn; 1 is uniform.
        num_outputs: C, the number of logits.
    """

    mixes_samples = True  # a teacher's outputs for it are no function of (seed, epoch, id), and cannot be cached

    def __init__(self, alpha: float, num_outputs: int) -> None:
        if not alpha > 0:
            raise ValueError(f"augment: alpha of Mixup must be > 0, got {alpha}")
        self.alpha, self.num_outputs = alpha, num_outputs

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Mix the batch with itself, rolled by one."""
        share = symmetric_beta(uniform(seed, epoch, batch.index, 2, RngStream.MIXUP), self.alpha)
        target = _mixed_target(batch.target, share, self.num_outputs)
        return replace(batch, inputs=_mixed(batch.inputs, share), target=target)


class CutMix:
    """Put a rectangle of the sample before it in the batch over each image (Yun et al. 2019, arXiv:1905.04899).

    A share is drawn from Beta(alpha, alpha); the rectangle has the image's proportions, the rest of the area, a random
    pixel in its middle, and is cut off where it leaves the image. Labels are mixed by the area that is left; for
    partners and labels see `Mixup`.

    Args:
        alpha: > 0, of the distribution Beta(alpha, alpha); 1, the paper's, is uniform.
        num_outputs: C, the number of logits.
    """

    moves_pixels = True
    mixes_samples = True

    def __init__(self, alpha: float, num_outputs: int) -> None:
        if not alpha > 0:
            raise ValueError(f"augment: alpha of CutMix must be > 0, got {alpha}")
        self.alpha, self.num_outputs = alpha, num_outputs

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """Mix the batch with itself, rolled by one."""
        images = images_of(self, batch)
        u = uniform(seed, epoch, batch.index, 4, RngStream.CUTMIX)
        side = (1 - symmetric_beta(u[:, :2], self.alpha)).sqrt().unsqueeze(1)
        covered = _box(images, u[:, 2:], [(side * length).long() for length in images.shape[2:]])
        target = _mixed_target(batch.target, 1 - covered.double().mean((1, 2, 3)), self.num_outputs)
        return replace(batch, inputs=torch.where(covered, images.roll(1, 0), images), target=target)


def _mixed(x: Tensor, share: Tensor) -> Tensor:
    weight = share.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    return weight * x + (1 - weight) * x.roll(1, 0)


def _mixed_target(target: Tensor, share: Tensor, num_outputs: int) -> Tensor:
    """See `Mixup`; share is each sample's own, (N,)."""
    if target.dim() == 1 and num_outputs > 1:
        classes = torch.arange(num_outputs, device=target.device)
        return _mixed((target.unsqueeze(1) == classes).float(), share)
    unlabeled = target == UNLABELED
    return _mixed(target.float(), share).masked_fill(unlabeled | unlabeled.roll(1, 0), UNLABELED)


def _box(images: Tensor, u: Tensor, sides: Sequence[int | Tensor]) -> Tensor:
    """What lies in a rectangle around a random pixel, cut off where it leaves the image.

    Args:
        images: (N, C, H, W).
        u: (N, 2) in [0, 1), which choose the pixel's row and column.
        sides: height and width in pixels, each one number or (N, 1) int64.

    Returns:
        (N, 1, H, W) bool.
    """

    def covered(axis: int) -> Tensor:
        length, side = images.shape[2 + axis], sides[axis]
        first = (u[:, axis : axis + 1] * length).long() - side // 2
        distance = torch.arange(length, device=images.device) - first
        return (distance >= 0) & (distance < side)

    return (covered(0).unsqueeze(2) & covered(1).unsqueeze(1)).unsqueeze(1)


def symmetric_beta(u: Tensor, alpha: float) -> Tensor:
    """Turn pairs of uniform numbers into one from Beta(alpha, alpha), for any alpha > 0.

    Exact and without rejection: Devroye 1996, "Random variate generation in one line of code", section 4, from
    Bailey's generator of Student's t with 2 alpha degrees of freedom.

    Args:
        u: (N, 2) in [0, 1).
        alpha: > 0.

    Returns:
        (N,) float64 in [0, 1].
    """
    u = u.double()
    t = torch.sqrt((1 - u[:, 0]) ** (-1 / alpha) - 1) * torch.cos(2 * math.pi * u[:, 1])
    return (1 + torch.sin(torch.atan(t))) / 2  # sin(atan(t)) = t / sqrt(1 + t^2), also where t is infinite


def images_of(transform: object, batch: Batch) -> Tensor:
    """The inputs of a batch of images, (N, C, H, W).

    Args:
        transform: that needs them, for the message.
        batch: see `kdexp.contracts.Batch`.

    Raises:
        ValueError: the inputs are no images.
    """
    if batch.inputs.dim() != 4:
        shape = list(batch.inputs.shape[1:])
        raise ValueError(f"augment: {type(transform).__name__} needs images (C, H, W), got inputs of shape {shape}")
    return batch.inputs
