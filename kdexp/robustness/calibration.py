"""Whether a network is as sure as it is right: Guo et al. 2017, "On Calibration of Modern Neural Networks".

(arXiv 1706.04599.) Everything is of predictions: confidences in [0, 1] and whether each is right. A prediction is a
sample's most probable class with its probability; in sigmoid tasks each label is one, with the probability of 1, and
right is the label, as in `kdexp.metrics`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import Task
from kdexp.losses.precision import at_least_fp32


def predictions(logits: Tensor, target: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Confidences and whether they are right.

    Args:
        logits: (N, C).
        target: see `kdexp.contracts.Task`, without missing labels.
        task: what they mean.

    Returns:
        Both float32, (N,) or for labels (N, C); the second of 0 and 1.
    """
    logits = at_least_fp32(logits)
    if task == "multiclass":
        confidence, decision = logits.softmax(1).max(1)
        return confidence, (decision == target).to(confidence.dtype)
    return logits.sigmoid(), target.view_as(logits).to(logits.dtype)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: what is in each of its bins.

    Attributes:
        count: (bins,) predictions in the bin.
        confidence: (bins,) their mean confidence; NaN where there are none.
        accuracy: (bins,) the share of them that is right; NaN where there are none.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    def error(self) -> float:
        """Expected calibration error: the mean over predictions of their bin's |accuracy - confidence|."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num(0.0)
        return float((self.count * gaps).sum() / self.count.sum())

    def largest(self) -> float:
        """Maximum calibration error: the largest of the bins' gaps."""
        return float((self.accuracy - self.confidence).abs().nan_to_num(0.0).max())


def reliability(confidence: Tensor, right: Tensor, bins: int = 15, *, adaptive: bool = False) -> Reliability:
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
        # (low, high], as the paper has it; the lowest has 0 too.
        place = (torch.ceil(confidence.double() * bins).long() - 1).clamp(min=0)
    zero = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    count = zero.scatter_add(0, place, torch.ones_like(confidence, dtype=torch.float64))
    sums = [zero.scatter_add(0, place, values.double()) for values in (confidence, right)]
    return Reliability(count, sums[0] / count, sums[1] / count)


def brier(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """Squared distance of the probabilities from the label as a one-hot vector, of each sample: Brier 1950.

    Summed over classes, so in [0, 2]; in sigmoid tasks the mean over labels of ``(p - y)^2``, in [0, 1].

    Returns:
        (N,) float32.
    """
    logits = at_least_fp32(logits)
    if task == "multiclass":
        wanted = F.one_hot(target, logits.shape[1])
        return (logits.softmax(1) - wanted).square().sum(1)
    return (logits.sigmoid() - target.view_as(logits)).square().mean(1)


def log_loss(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """Negative log likelihood in nats, of each sample; in sigmoid tasks the mean over its labels.

    Returns:
        (N,) float32.
    """
    logits = at_least_fp32(logits)
    if task == "multiclass":
        return F.cross_entropy(logits, target, reduction="none")
    wanted = target.view_as(logits).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)


def best_temperature(logits: Tensor, target: Tensor, task: Task) -> float:
    """The T > 0 whose ``logits / T`` have the smallest negative log likelihood: their section 4.2.

    In 1 / T the likelihood has one maximum at most. Where the logits say nothing, or are never wrong, there is none
    inside (0.01, 100), and the end that is nearest to it is returned.

    Args:
        logits: (N, C), of data that nothing was trained on and nothing is tested on.
        target: see `kdexp.contracts.Task`.
        task: what they mean.
    """
    logits = logits.double()
    low, high = math.log(0.01), math.log(100)
    golden = (5**0.5 - 1) / 2

    def loss(log_t: float) -> float:
        return float(log_loss(logits / math.exp(log_t), target, task).mean())

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
