"""How well scores rank positives above negatives: ROC curves and the area under them (AUC).

All of it depends on the order of the scores alone. So a score must not saturate, as a float32 softmax or sigmoid does:
it is exactly 1 for a logit that is 17 above the others, and so equal for samples that the network does order.
`one_vs_rest` keeps their order. (torchmetrics' AUROC puts whatever is outside [0, 1] through a softmax or sigmoid.)
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kdexp.contracts import UNLABELED, Kind

EXACT_BYTES = 2**28
"""As long as the float32 scores of a split (rows x classes) fit in this, all are kept and curves and areas are exact.

These are 67 million scores: 6.7 million rows of 10 classes, 67,000 of 1,000.
"""
BINS_BYTES = 2**26
"""What the counts of binned scores may take, for all classes together."""
FALSE_POSITIVE_RATES = torch.arange(201, dtype=torch.float64) / 200
"""Where a curve is read: (201,), from 0 to 1."""
# A bin is (|score| + least) / 2^bits wide at most: narrow about zero, and not too wide where scores are large.
# Scores beyond the largest are in one bin.
_LEAST, _LARGEST = 2.0**-8, 2.0**16
_LEAST_BITS = (127 - 8) << 23  # as a float32
_POWERS = 24


def one_vs_rest(logits: Tensor, kind: Kind) -> Tensor:
    """A score of each class against the rest that orders samples as the class's probability does, unsaturated.

    It is the logarithm of the odds: multiclass ``log p_c / (1 - p_c) = z_c - log sum_{j != c} exp z_j``; in sigmoid
    tasks the logit itself.

    Args:
        logits: (rows, C), at least float32.
        kind: what they mean.

    Returns:
        (rows, C), of the same dtype.
    """
    if kind != "multiclass":
        return logits
    largest, place = logits.max(1, keepdim=True)
    rest = logits.scatter(1, place, -torch.inf).logsumexp(1, keepdim=True)
    total = torch.logaddexp(largest, rest)
    # A class that is not the largest has p <= 1/2, where log(1 - p) loses nothing.
    odds = logits - total - torch.log1p(-(logits - total).exp())
    return odds.scatter(1, place, largest - rest)


class Steps(NamedTuple):
    """An empirical ROC curve: what is counted at each threshold, from the highest down, and nothing at the first.

    Attributes:
        negatives: (..., k) int64, rising from 0: how many negatives score at least the threshold.
        positives: the same of the positives.
    """

    negatives: Tensor
    positives: Tensor

    def area(self) -> Tensor:
        """Area under the curve, (...) float64: P(positive > negative) + P(equal) / 2. NaN without one of either."""
        twice = (self.negatives.diff() * (self.positives[..., 1:] + self.positives[..., :-1])).sum(-1)
        return twice.double() / (2 * self._pairs())

    def undecided(self) -> Tensor:
        """Half the fraction of pairs of a positive and a negative in one step, (...) float64.

        Where steps are bins the exact area differs from `area` by this at most: it counts such a pair as 1/2, and the
        exact one as 0, 1/2 or 1.
        """
        return (self.negatives.diff() * self.positives.diff()).sum(-1).double() / (2 * self._pairs())

    def true_positive_rates(self) -> Tensor:
        """The curve's height at `FALSE_POSITIVE_RATES`, (201,) float64; at a vertical piece its upper end.

        NaN without one of either; of one curve.
        """
        x, y = (count.double() / count[-1] for count in self)
        grid = FALSE_POSITIVE_RATES.to(x.device)
        left = (torch.searchsorted(x, grid, right=True) - 1).clamp(max=len(x) - 2)
        way = (grid - x[left]) / (x[left + 1] - x[left])
        found = torch.lerp(y[left], y[left + 1], way.nan_to_num(1.0))  # 0/0 where the curve ends vertically
        return torch.where(self._pairs() > 0, found, torch.nan)

    def _pairs(self) -> Tensor:
        return self.negatives[..., -1].double() * self.positives[..., -1]


def steps(scores: Tensor, negatives: Tensor, positives: Tensor) -> Steps:
    """The exact curve.

    Args:
        scores: (n,), of which only the order matters.
        negatives: (..., n) int64: how often each is there as a negative.
        positives: likewise.
    """
    ordered, order = scores.sort(descending=True)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]  # equal scores are one step
    last = is_last.nonzero()[:, 0]
    return Steps(*(_from_zero(count[..., order].cumsum(-1)[..., last]) for count in (negatives, positives)))


def of_two(
    positive: Tensor, negative: Tensor, positives: Tensor | None = None, negatives: Tensor | None = None
) -> Steps:
    """The exact curve of a score, of two sets of samples.

    Args:
        positive: (n,) scores of what ought to score high.
        negative: (m,) scores of the others.
        positives: (..., n) int64: how often each positive is there; once unless given.
        negatives: (..., m), likewise.
    """
    positives = torch.ones_like(positive, dtype=torch.int64) if positives is None else positives
    negatives = torch.ones_like(negative, dtype=torch.int64) if negatives is None else negatives
    return steps(
        torch.cat((positive, negative)),
        torch.cat((torch.zeros_like(positives), negatives), -1),
        torch.cat((positives, torch.zeros_like(negatives)), -1),
    )


def _from_zero(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts, (1, 0))


class Ranked(NamedTuple):
    """How well the scores of C classes rank them, each against the rest; NaN without positives or without negatives.

    Attributes:
        area: (C,) float64, area under the ROC curve.
        error: (C,) float64, how far from the exact area it is at most: 0 unless the scores were binned.
        tpr: (C, 201) float64, true positive rates at `FALSE_POSITIVE_RATES`; None unless they are wanted.
    """

    area: Tensor
    error: Tensor
    tpr: Tensor | None


class Ranking(Metric):
    """ROC curves of a split, over all ranks.

    Args:
        kind: what logits and targets mean.
        num_classes: C, the number of logits.
        samples: rows in the split, over all ranks; it decides whether they are exact (see `EXACT_BYTES`). 0: exact.
        curves: whether the curves are wanted, not only the areas under them.
        kwargs: torchmetrics' own.
    """

    scores: list[Tensor]
    labels: list[Tensor]
    counts: Tensor

    def __init__(
        self, kind: Kind, num_classes: int, *, samples: int = 0, curves: bool = False, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self._kind: Kind = kind
        self._num_classes, self._curves = num_classes, curves
        self.is_exact = 4 * samples * num_classes <= EXACT_BYTES
        if self.is_exact:
            self.add_state("scores", [], dist_reduce_fx="cat")
            self.add_state("labels", [], dist_reduce_fx="cat")
        else:
            affordable = BINS_BYTES // (8 * 2 * num_classes * 2 * _POWERS)  # bins in each power of two
            self._bits = max(affordable, 1).bit_length() - 1
            self._bins = 2 * ((_POWERS << self._bits) + 1)
            self.add_state("counts", torch.zeros(num_classes * 2 * self._bins, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (rows, C), at least float32.
            label: see `kdexp.metrics.rows.labels`.
        """
        scores = one_vs_rest(logits, self._kind)
        if self.is_exact:
            self.scores.append(scores)
            self.labels.append(label)
            return
        classes = torch.arange(self._num_classes, device=scores.device)
        if self._kind == "multiclass":
            label = torch.where(label.unsqueeze(1) == UNLABELED, UNLABELED, (label.unsqueeze(1) == classes).long())
        place = self._bins * (2 * classes + label.clamp(min=0)) + self._bin(scores)
        self.counts.scatter_add_(0, place.flatten(), (label != UNLABELED).long().flatten())

    def _bin(self, scores: Tensor) -> Tensor:
        """The bin of each score, int64, which rises with it: the bits of a positive float are in its order."""
        size = scores.float().nan_to_num(nan=0.0).abs().clamp(max=_LARGEST) + _LEAST
        place = ((size.view(torch.int32) - _LEAST_BITS) >> (23 - self._bits)).long()
        return self._bins // 2 + torch.where(scores < 0, -1 - place, place)

    def compute(self) -> Ranked:
        """What was added since the last reset, on the CPU."""
        each = [
            (found.area(), found.undecided(), found.true_positive_rates() if self._curves else None)
            for found in self._each()
        ]
        area, undecided, tpr = zip(*each, strict=True)
        error = torch.stack(undecided).cpu()
        return Ranked(
            torch.stack(area).cpu(),
            torch.zeros_like(error) if self.is_exact else error,
            torch.stack(tpr).cpu() if self._curves else None,
        )

    def _each(self) -> Iterator[Steps]:
        """The curve of each class."""
        if not self.is_exact:
            for counts in self.counts.view(self._num_classes, 2, self._bins):
                yield Steps(*_from_zero(counts.flip(-1).cumsum(-1)))
            return
        scores, label = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        for number in range(self._num_classes):
            own, positive = (label, number) if self._kind == "multiclass" else (label[:, number], 1)
            is_negative = (own != positive) & (own != UNLABELED)
            yield steps(scores[:, number], is_negative.long(), (own == positive).long())
