"""Selective prediction: does a network know when it is wrong?

Predictions are made the most confident first; coverage is the fraction of all that are made, risk the fraction of those
that are wrong. A prediction is a sample's most probable class; in sigmoid tasks each label is one, with the probability
of the answer that is given.

Geifman et al. 2018 (arXiv 1805.08206) for AURC, Traub et al. 2024 (arXiv 2407.01032) for AUGRC; equal confidences are
one threshold, as in fd-shifts, the latter's code.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kdexp.contracts import UNLABELED, Kind
from kdexp.metrics.auc import steps
from kdexp.metrics.rows import decisions

RISK = 0.05
"""What `Selective.coverage_at_5` admits."""


class Selective(NamedTuple):
    """How well confidence tells right predictions from wrong ones.

    Attributes:
        aurc: area under the curve of risk over coverage, in [0, 1]; lower is better. One that tells nothing has the
            error rate. From coverage 0, with the risk of the most confident predictions there.
        augrc: the same of the generalized risk, the fraction of all predictions that are made and wrong, in [0, 1/2]:
            the mean risk of a failure that is not noticed. One that tells nothing has half the error rate.
        failure_auroc: P(confidence of a right one > that of a wrong one) + P(equal) / 2; NaN where all are right, or
            all wrong. Unlike the areas it does not depend on the error rate.
        coverage_at_5: the largest coverage with a risk of at most 5 %; 0 where no threshold has that.
    """

    aurc: float
    augrc: float
    failure_auroc: float
    coverage_at_5: float


def selective(confidence: Tensor, is_wrong: Tensor) -> Selective:
    """What a confidence is good for.

    Args:
        confidence: (n,), of which only the order matters.
        is_wrong: (n,) bool.
    """
    found = steps(confidence, is_wrong.long(), (~is_wrong).long())
    wrong, made = found.negatives.double(), (found.negatives + found.positives).double()
    coverage, risk = made / made[-1], wrong[1:] / made[1:]
    admitted = coverage[1:][risk <= RISK]
    return Selective(
        aurc=float(torch.trapezoid(torch.cat((risk[:1], risk)), coverage)),
        augrc=float(torch.trapezoid(wrong / made[-1], coverage)),
        failure_auroc=float(found.area()),
        coverage_at_5=float(admitted[-1]) if len(admitted) else 0.0,
    )


def confidences(logits: Tensor, kind: Kind) -> Tensor:
    """The log odds of each prediction, in float64: in the order of its probability, and they do not saturate.

    (A float32 softmax is exactly 1 for a logit that is 17 above the others: many confidences would be equal.)

    Args:
        logits: (rows, C).
        kind: what they mean.

    Returns:
        (rows,) or for labels (rows, C), float64.
    """
    logits = logits.double()
    if kind != "multiclass":
        return logits.abs()
    largest, place = logits.max(1, keepdim=True)
    return (largest - logits.scatter(1, place, -torch.inf).logsumexp(1, keepdim=True))[:, 0]


class SelectivePrediction(Metric):
    """`selective` of a split, over all ranks; all confidences are kept.

    Args:
        kwargs: torchmetrics' own.
    """

    confidence: list[Tensor]
    is_wrong: list[Tensor]

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("confidence", [], dist_reduce_fx="cat")
        self.add_state("is_wrong", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor, kind: Kind) -> None:
        """Add a batch.

        Args:
            logits: (rows, C), at least float32.
            label: see `kdexp.metrics.rows.labels`.
            kind: what they mean.
        """
        known = label != UNLABELED
        self.confidence.append(confidences(logits, kind)[known])
        self.is_wrong.append((decisions(logits, kind) != label)[known])

    def compute(self) -> Selective:
        """Of all that was added since the last reset."""
        return selective(dim_zero_cat(self.confidence), dim_zero_cat(self.is_wrong))
