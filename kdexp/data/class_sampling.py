"""Epochs in which the classes have other shares than in the data: balanced, or shifted on purpose."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.contracts import UNLABELED, Kind
from kdexp.data.stateless_rng import RngStream, order


def class_shares(class_sampling: object, *, kind: Kind, num_classes: int) -> list[float] | None:
    """The fraction of each class in an epoch, as ``dataset.class_sampling`` gives it.

    Args:
        class_sampling: None; "balanced": the same for all classes; or a positive number for each class.
        kind: what the targets mean.
        num_classes: C.

    Returns:
        C shares whose sum is 1; None: the classes are as frequent as in the data.

    Raises:
        ValueError: none of these, or multi-label data.
    """
    if class_sampling is None:
        return None
    if kind == "multilabel":
        rule = "must be null with kind=multilabel, where a sample is of several classes"
        raise ValueError(f"dataset.class_sampling {rule}, got {class_sampling}")
    if class_sampling == "balanced":
        return [1 / num_classes] * num_classes
    shares = class_sampling if isinstance(class_sampling, Sequence) and not isinstance(class_sampling, str) else ()
    if len(shares) != num_classes or not all(_is_positive(share) for share in shares):
        rule = f"must be null, balanced or a list of {num_classes} positive numbers, one for each class"
        raise ValueError(f"dataset.class_sampling {rule}, got {class_sampling}")
    return [share / sum(shares) for share in shares]


def _is_positive(share: object) -> bool:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 < share < float("inf")


def resampled_order(target: Tensor, shares: Sequence[float], seed: int, epoch: int) -> Tensor:
    """An epoch's order of as many samples as there are, in which the classes have the given shares.

    A class that is to fill k places gives its samples in a random order of this epoch, over again as often as needed,
    and cut off at k: no sample comes twice more often than another of its class, and over the epochs all come equally
    often. Then all is shuffled. The numbers k are the same in every epoch: those of the largest remainders, each within
    one of its share. Samples without a label come once each.

    Args:
        target: (N,) int64 class numbers or `UNLABELED`. With noisy labels, these are what counts.
        shares: of each class among the labelled samples; > 0, their sum is 1.
        seed: of the order.
        epoch: likewise.

    Returns:
        (N,) int64 on the CPU: position + N * (how often that position came before, among those of its class), so that
        the copies of a sample can be told apart.

    Raises:
        ValueError: a class has no labelled sample to draw.
    """
    shuffled = order(seed, epoch, len(target), RngStream.RESAMPLED)
    labels = target[shuffled]
    counts = torch.bincount(target - UNLABELED, minlength=len(shares) + 1).tolist()
    unlabeled, *classes = torch.split(shuffled[labels.argsort(stable=True)], counts)
    parts = [unlabeled]
    for label, (members, size) in enumerate(zip(classes, _sizes(shares, sum(counts[1:])), strict=True)):
        if not len(members):
            raise ValueError(
                f"dataset.class_sampling must find labelled samples of every class, got none of class {label}"
            )
        place = torch.arange(size)
        parts.append(members[place % len(members)] + len(target) * (place // len(members)))
    return torch.cat(parts)[order(seed, epoch, len(target))]


def _sizes(shares: Sequence[float], n: int) -> list[int]:
    exact = torch.tensor(shares, dtype=torch.float64) * n
    sizes = exact.floor().long()
    # Rounded, so that equal remainders are equal, and the lower class comes first.
    remainders = ((exact - sizes) * 1e6).round()
    sizes[remainders.argsort(descending=True, stable=True)[: n - int(sizes.sum())]] += 1
    found: list[int] = sizes.tolist()
    return found
