"""Whether a network is as sure as it is right: Guo et al. 2017, "On Calibration of Modern Neural Networks".

(arXiv 1706.04599.) Everything is of predictions: confidences in [0, 1] and whether each is right. A prediction is a
sample's most probable class with its probability; in sigmoid tasks each label is one, with the probability of 1, and
right is the label.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.metrics.rows import decisions, labels

BINS = 15
"""Of the expected calibration error, unless others are given."""


def predictions(logits: Tensor, target: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """Confidences and whether they are right.

    Args:
        logits: (N, C).
        target: see `kdexp.contracts.Kind`.
        kind: what they mean.

    Returns:
        Both float32, (N,) or for labels (N, C); the second of 0 and 1, or -1 where a label (of sigmoid tasks) is
        missing.
    """
    logits, label = at_least_fp32(logits), labels(target, kind)
    if kind == "multiclass":
        decision = decisions(logits, kind)
        confidence = logits.softmax(1).gather(1, decision.unsqueeze(1))[:, 0]
        return confidence, (decision == label).to(confidence.dtype)
    return logits.sigmoid(), label.to(logits.dtype)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: what is in each of its bins.

    Attributes:
        count: (bins,) predictions in the bin.
        confidence: (bins,) their mean confidence; NaN where there are none.
        accuracy: (bins,) the fraction of them that is right; NaN where there are none.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    def error(self) -> float:
        """Expected calibration error: the mean over predictions of their bin's |accuracy - confidence|."""
        return float((self.count * self._gaps()).sum() / self.count.sum())

    def largest(self) -> float:
        """Maximum calibration error: the largest of the bins' gaps."""
        return float(self._gaps().max())

    def _gaps(self) -> Tensor:
        return torch.where(self.count > 0, (self.accuracy - self.confidence).abs(), 0.0)


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS, *, adaptive: bool = False) -> Reliability:
    """Sort predictions into bins.

    Args:
        confidence: in [0, 1], of any shape.
        right: of the same shape, 0 or 1.
        bins: how many.
        adaptive: of as many predictions each (Nixon et al. 2019, arXiv 1904.01685, equation 4) instead of equal width.

    Returns:
        The bins, in the order of confidence.
    """
    confidence, right = confidence.flatten(), right.flatten()
    if adaptive:
        order = confidence.argsort(stable=True)
        confidence, right = confidence[order], right[order]
        place = torch.arange(len(confidence), device=confidence.device) * bins // len(confidence)
    else:
        place = bin_of(confidence, bins)
    return from_sums(bin_sums(place, confidence, right, torch.ones_like(confidence), bins))


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """The number of the bin of equal width, int64: (low, high], as the paper has it; the lowest has 0 too."""
    return (torch.ceil(confidence.double() * bins).long() - 1).clamp(0, bins - 1)


def bin_sums(place: Tensor, confidence: Tensor, right: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Of the predictions in each bin the weights, and confidence and right times them, summed.

    Args:
        place: (n,) int64, the bin of each.
        confidence: (n,) in [0, 1].
        right: (n,) of 0 and 1.
        weight: (n,).
        bins: how many.

    Returns:
        (3, bins) float64.
    """
    weight = weight.double()
    parts = torch.stack((weight, weight * confidence, weight * right))
    return parts.new_zeros(3, bins).scatter_add(1, place.expand(3, -1), parts)


def from_sums(sums: Tensor) -> Reliability:
    """The diagram of (3, bins) sums, see `bin_sums`."""
    count, confidence, right = sums
    return Reliability(count, confidence / count, right / count)


class CalibrationError(Metric):
    """The expected calibration error of a split, over all ranks: that of `reliability`, whose bins alone are kept.

    (torchmetrics' own keeps every confidence, closes its bins at the other end, and has one more for confidences of
    exactly 1.)

    Args:
        kwargs: torchmetrics' own.
    """

    sums: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(3, BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor, kind: Kind) -> None:
        """Add a batch.

        Args:
            logits: (rows, C).
            label: see `kdexp.metrics.rows.labels`.
            kind: what they mean.
        """
        confidence, right = (each.flatten() for each in predictions(logits, label, kind))
        self.sums += bin_sums(bin_of(confidence, BINS), confidence, right, label.flatten() != UNLABELED, BINS)

    def compute(self) -> Tensor:
        """The error, a scalar."""
        return torch.tensor(from_sums(self.sums).error(), dtype=torch.float64)


def brier(logits: Tensor, target: Tensor, kind: Kind) -> Tensor:
    """Squared distance of the probabilities from the label as a one-hot vector, of each sample: Brier 1950.

    Summed over classes, so in [0, 2]; in sigmoid tasks ``(p - y)^2`` of each label, in [0, 1].

    Args:
        logits: (N, C).
        target: see `kdexp.contracts.Kind`.
        kind: what they mean.

    Returns:
        (N,) or for labels (N, C), float32; 0 where the label is missing.
    """
    logits, label = at_least_fp32(logits), labels(target, kind)
    known, wanted = (label != UNLABELED).to(logits.dtype), label.clamp(min=0)
    if kind == "multiclass":
        return (logits.softmax(1) - F.one_hot(wanted, logits.shape[1])).square().sum(1) * known
    return (logits.sigmoid() - wanted).square() * known


def log_loss(logits: Tensor, target: Tensor, kind: Kind) -> Tensor:
    """Negative log likelihood in nats, of each sample; in sigmoid tasks of each label.

    Args:
        logits: (N, C).
        target: see `kdexp.contracts.Kind`.
        kind: what they mean.

    Returns:
        (N,) or for labels (N, C), float32; 0 where the label is missing.
    """
    logits, label = at_least_fp32(logits), labels(target, kind)
    if kind == "multiclass":
        return F.cross_entropy(logits, label, ignore_index=UNLABELED, reduction="none")
    known = (label != UNLABELED).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), weight=known, reduction="none")


def best_temperature(logits: Tensor, target: Tensor, kind: Kind) -> float:
    """The T > 0 whose ``logits / T`` have the smallest negative log likelihood: their section 4.2.

    In 1 / T the likelihood has one maximum at most. Where the logits say nothing, or are never wrong, there is none
    inside (0.01, 100), and the end that is nearest to it is returned.

    Args:
        logits: (N, C), of data that nothing was trained on and nothing is tested on.
        target: see `kdexp.contracts.Kind`.
        kind: what they mean.
    """
    logits = logits.double()
    low, high = math.log(0.01), math.log(100)
    golden = (5**0.5 - 1) / 2

    def loss(log_t: float) -> float:
        return float(log_loss(logits / math.exp(log_t), target, kind).mean())

    # Golden-section search: the loss falls and then rises in log T.
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)
