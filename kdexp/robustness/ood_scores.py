"""Whether a network notices that an input is none of its classes.

A score is larger for what looks familiar. Published scores of the logits alone:

- msp: the largest probability (Hendrycks and Gimpel 2017, arXiv 1610.02136);
- max_logit: the largest logit (Hendrycks et al. 2022, arXiv 1911.11132);
- energy: ``log sum_k exp(z_k)``, the negative of the energy at T = 1 (Liu et al. 2020, arXiv 2010.03759, equation 4).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdexp.contracts import Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.metrics.auc import of_two


def scores(logits: Tensor, kind: Kind) -> Mapping[str, Tensor]:
    """The scores of each sample by name, (N,) float.

    In sigmoid tasks each label has two outcomes, with logits -z / 2 and z / 2, and the scores are means over labels.
    """
    logits = at_least_fp32(logits)
    if kind != "multiclass":
        logits = torch.stack((-logits / 2, logits / 2), 1)
    found = {"msp": logits.softmax(1).amax(1), "max_logit": logits.amax(1), "energy": logits.logsumexp(1)}
    return found if kind == "multiclass" else {name: score.mean(1) for name, score in found.items()}


def detection(familiar: Tensor, foreign: Tensor) -> dict[str, float]:
    """How well a score tells one from the other.

    Args:
        familiar: (n,) scores of test data of the network's own classes.
        foreign: (m,) scores of others.

    Returns:
        ``auroc``: area under the ROC curve, with familiar as positive; 0.5 is chance. ``fpr95``: the fraction of
        foreign samples that pass at the threshold which 95 % of the familiar ones pass.
    """
    auroc = of_two(familiar, foreign).area()
    threshold = familiar.sort(descending=True).values[-(-95 * len(familiar) // 100) - 1]
    return {"auroc": float(auroc), "fpr95": float((foreign >= threshold).double().mean())}
