"""How logits and targets are read: one row a sample, its label, and what the network decides."""

import torch
from torch import Tensor

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.dtype import at_least_fp32


def rows(logits: Tensor) -> Tensor:
    """(N, C, ...) as (rows, C), at least float32: every position of dense logits is a row."""
    return at_least_fp32(logits.detach()).movedim(1, -1).reshape(-1, logits.shape[1])


def labels(target: Tensor, kind: Kind) -> Tensor:
    """Int64: (rows,) class numbers, or (rows, labels) of 0 and 1; ``UNLABELED`` where there is no label.

    Args:
        target: see `kdexp.contracts.Kind`; or masks (N, H, W), of which every pixel is a row.
        kind: what they mean.
    """
    if target.dim() == 3:
        found = target.clamp(min=UNLABELED).long()
        return found.reshape(-1) if kind == "multiclass" else found.reshape(-1, 1)
    if kind == "multiclass":
        if not target.is_floating_point():
            return target.reshape(-1)
        return torch.where(target.sum(1) > 0, target.argmax(1), UNLABELED)
    flat = target.reshape(len(target), -1)
    return torch.where(flat == UNLABELED, UNLABELED, (flat >= 0.5).long())


def decisions(logits: Tensor, kind: Kind) -> Tensor:
    """Int64, of the shape of `labels`; two equal logits: the first class, or 0."""
    return logits.argmax(1) if kind == "multiclass" else (logits > 0).long()


@torch.no_grad()
def right(logits: Tensor, target: Tensor, kind: Kind) -> Tensor:
    """Of each sample whether it is right; in sigmoid tasks the fraction of its labels that is.

    Args:
        logits: (N, C).
        target: see `kdexp.contracts.Kind`, without missing labels.
        kind: what they mean.

    Returns:
        (N,) float32 in [0, 1], whose mean is the accuracy of `kdexp.metrics.classification.Metrics`.
    """
    label = labels(target, kind)
    return (decisions(rows(logits), kind) == label).float().view(len(label), -1).mean(1)
