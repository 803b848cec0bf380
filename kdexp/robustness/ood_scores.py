"""Whether a network notices that an input is none of its classes.

A score is larger for what looks familiar. Published scores of the logits alone:

- msp: the largest probability (Hendrycks and Gimpel 2017, arXiv 1610.02136), of classes as its log odds, which order
  samples alike, but do not saturate (a float32 softmax is exactly 1 for a logit that is 17 above the others);
- max_logit: the largest logit (Hendrycks et al. 2022, arXiv 1911.11132);
- energy: ``log sum_k exp(z_k)``, the negative of the energy at T = 1 (Liu et al. 2020, arXiv 2010.03759, equation 4).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdexp.contracts import Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.metrics.auc import of_two
from kdexp.metrics.selective import confidences


def scores(logits: Tensor, kind: Kind) -> Mapping[str, Tensor]:
    """The scores of each sample by name, (N,) float.

    In sigmoid tasks each label has two outcomes, with logits -z / 2 and z / 2, and the scores are means over labels.
    """
    logits = at_least_fp32(logits)
    of_classes = kind == "multiclass"
    if not of_classes:
        logits = torch.stack((-logits / 2, logits / 2), 1)
    largest = confidences(logits, kind) if of_classes else logits.softmax(1).amax(1)
    found = {"msp": largest, "max_logit": logits.amax(1), "energy": logits.logsumexp(1)}
    return found if of_classes else {name: score.mean(1) for name, score in found.items()}


def detection(familiar: Tensor, foreign: Tensor) -> dict[str, float]:
    """How well a score tells one from the other.

    Args:
        familiar: (n,) scores of test data of the network's own classes.
        foreign: (m,) scores of others.

    Returns:
        ``auroc``: area under the ROC curve; 0.5 is chance, whichever of the two is called positive.
        ``fpr95``: familiar is positive: the fraction of foreign samples that pass at the threshold which 95 % of the
        familiar ones pass.
        ``fpr95_openood``: foreign is positive, as in OpenOOD (Zhang et al. 2023, arXiv 2306.09301): the fraction of
        familiar samples that are flagged at the first threshold that flags 95 % of the foreign ones.
        ``aupr_in``, ``aupr_out``: area under the curve of precision over recall, familiar and foreign being positive;
        by the trapezoidal rule, as in OpenOOD (average precision is another number). A score that tells nothing has
        the fraction of the positive samples.
    """
    auroc = of_two(familiar, foreign).area()
    found = {"auroc": auroc, "fpr95": _fpr95(familiar, foreign), "fpr95_openood": _fpr95(-foreign, -familiar)}
    found |= {"aupr_in": _aupr(familiar, foreign), "aupr_out": _aupr(-foreign, -familiar)}
    return {name: float(value) for name, value in found.items()}


def _fpr95(positive: Tensor, negative: Tensor) -> Tensor:
    threshold = positive.sort(descending=True).values[-(-95 * len(positive) // 100) - 1]
    return (negative >= threshold).double().mean()


def _aupr(positive: Tensor, negative: Tensor) -> Tensor:
    found = of_two(positive, negative)
    precision = found.positives[1:] / (found.positives + found.negatives)[1:].double()
    recall = found.positives.double() / len(positive)
    return torch.trapezoid(torch.cat((torch.ones_like(precision[:1]), precision)), recall)
