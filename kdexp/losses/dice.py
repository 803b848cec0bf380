"""The Dice term of segmentation (Milletari, Navab and Ahmadi 2016, "V-Net", arXiv 1606.04797, section 3).

It is a part of the hard term, beside cross entropy: it does not grow with the background.
"""

import torch
from torch import Tensor

from kdexp.contracts import Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_SMOOTHING = 1.0


def dice(logits: Tensor, target: Tensor, *, kind: Kind) -> Tensor:
    """The mean of `dice_of_images` over the images that have a label.

    Args:
        logits: (N, C, ...), or (N, 1, ...) for the binary kind: the positions of an image in any dimensions.
        target: (N, ...) int64; see `dice_of_images`.
        kind: multiclass or binary.

    Returns:
        Scalar in [0, 1); 0 (with a gradient of 0) when nothing is labelled.

    Raises:
        ValueError: see `dice_of_images`.
    """
    losses, is_labelled = dice_of_images(logits, target, kind=kind)
    return losses.sum() / is_labelled.sum().clamp(min=1)


def dice_of_images(logits: Tensor, target: Tensor, *, kind: Kind) -> tuple[Tensor, Tensor]:
    """``1 - (2 sum p y + 1) / (sum p + sum y + 1)`` of each image and class, the mean over the image's classes.

    p are probabilities (the paper's have squares below, nnU-Net's and these have not), y is 1 where the class is the
    label, and the sums go over the positions of one image that have a label: what is ``UNLABELED``, ``VOID`` or
    ``ABSENT`` is in none of them.

    Which classes count: of a binary mask class 1, whether it occurs or not: an image without it has the loss
    ``1 - 1 / (sum p + 1)``, which is 0 for an empty prediction and grows with false positives. Of a multiclass mask
    those that occur as a label in the image: any other would have a loss near 1 for the smallest probabilities, and
    what it takes from those that occur, they lose.

    nnU-Net (Isensee et al. 2021) pools the sums over the batch where it trains on slices. Here they are of one image:
    the loss of a batch is then the mean of its parts' losses, however it is cut into micro-batches and ranks.

    Args:
        logits: (N, C, ...), or (N, 1, ...) for the binary kind: the positions of an image in any dimensions.
        target: (N, ...) int64 class numbers, or one of the negative constants of `kdexp.contracts`.
        kind: multiclass or binary.

    Returns:
        The loss of each image, (N,) in [0, 1), at least float32, 0 where nothing is labelled; and whether something is,
        (N,) bool. Sums of both over micro-batches or ranks give the mean over all.

    Raises:
        ValueError: shapes that do not fit, a target that is no mask of class numbers, the multilabel kind.
    """
    if kind == "multilabel":
        raise ValueError(f"kind must be multiclass or binary for dice, got {kind}")
    check_shapes("N 1 ..., N ..." if kind == "binary" else "N C ..., N ...", logits=logits, target=target)
    if target.dtype != torch.int64:
        raise ValueError(f"target must be int64 class numbers for dice, got {str(target.dtype).removeprefix('torch.')}")
    label = target.reshape(len(target), 1, -1)
    is_known = label >= 0
    # Before the softmax: a NaN in padding would come back in the gradient.
    known = at_least_fp32(logits).reshape(*logits.shape[:2], -1).where(is_known, 0)
    p = (known.sigmoid() if kind == "binary" else known.softmax(1)) * is_known
    first = 1 if kind == "binary" else 0
    y = label == torch.arange(first, first + logits.shape[1], device=logits.device).unsqueeze(1)
    overlap, predicted, labelled = (p * y).sum(2), p.sum(2), y.sum(2)
    losses = 1 - (2 * overlap + _SMOOTHING) / (predicted + labelled + _SMOOTHING)
    is_labelled = is_known.any(2)
    counts = (is_labelled if kind == "binary" else labelled > 0).to(losses.dtype)
    return (losses * counts).sum(1) / counts.sum(1).clamp(min=1), is_labelled[:, 0]
