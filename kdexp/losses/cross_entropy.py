"""The hard term: cross entropy with the true labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_logits, check_scalars, check_target


def cross_entropy(logits: Tensor, target: Tensor, *, kind: Kind, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy (negative log likelihood) of the true labels, computed in at least float32.

    The mean is taken over what is labelled; ``UNLABELED`` entries have no part in it. Sigmoid tasks average over
    samples and labels alike, as ``F.binary_cross_entropy_with_logits`` and the soft term in `kdexp.losses.kd` do, so
    that the weight between the two terms does not depend on the number of labels.

    Args:
        logits: (N, C), dense (N, C, ...), or (N, 1) for the binary task.
        target: multiclass: int64 (N,) or (N, ...) in 0..C-1 or ``UNLABELED``; or, after mixup, float (N, C): a row's
            sum, in [0, 1], is the labelled fraction of that sample and its weight in the mean. binary: (N,) or (N, 1)
            in {0, 1} or ``UNLABELED``. multilabel: (N, C) in [0, 1] or ``UNLABELED``.
        kind: what logits and target mean.
        label_smoothing: fraction of each label, in [0, 1), that is spread evenly over all classes (over both outcomes
            for sigmoid tasks); Szegedy et al. 2016, section 7.

    Returns:
        Scalar, in nats; 0 (with a gradient of 0) when nothing is labelled.

    Raises:
        ValueError: shapes that do not fit, or class numbers that are not int64.
    """
    check_logits(kind, logits=logits)
    check_target(target, logits.shape, kind)
    check_scalars(label_smoothing=label_smoothing)
    logits = at_least_fp32(logits)
    if kind != "multiclass":
        return _sigmoid_cross_entropy(logits, target.reshape(logits.shape), label_smoothing)
    if target.is_floating_point():
        return _mixed_cross_entropy(logits, target, label_smoothing)
    mean = F.cross_entropy(logits, target, ignore_index=UNLABELED, label_smoothing=label_smoothing)
    # Asking the device whether anything is labelled would wait for it; 0/0 is replaced there instead.
    return torch.where((target != UNLABELED).any(), mean, torch.zeros_like(mean))


def _mixed_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    share = target.sum(1, keepdim=True)
    smooth = (1 - label_smoothing) * target + label_smoothing * share / logits.shape[1]
    return -(smooth * logits.log_softmax(1)).sum() / _or_one(share.sum())


def _sigmoid_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    labelled = (target != UNLABELED).to(logits.dtype)
    smooth = (1 - label_smoothing) * target.to(logits.dtype) + label_smoothing / 2
    total = F.binary_cross_entropy_with_logits(logits, smooth, weight=labelled, reduction="sum")
    return total / _or_one(labelled.sum())


def _or_one(count: Tensor) -> Tensor:
    return torch.where(count > 0, count, torch.ones_like(count))
