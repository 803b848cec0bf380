"""Split conformal prediction: sets of classes that hold the right one with a set probability.

A score says how badly a class fits a sample. The threshold is a quantile of the scores of the right classes of samples
that nothing was trained or chosen on; a set has the classes whose scores do not exceed it. See Angelopoulos and Bates
2021 (arXiv 2107.07511).

- ``lac``: 1 - p_y (Sadinle et al. 2019, arXiv 1609.00451); the smallest sets on average, of which some may be empty.
- ``aps``: the probabilities of all classes that are at least as probable, summed (Romano et al. 2020, arXiv
  2006.02544); larger sets where a sample is hard.
- ``aps_randomized``: the same with a random part of p_y, the same for all classes of a sample, without which the sets
  are larger than they need be.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def rank(samples: int, error_rate: float) -> int:
    """Which of the scores in ascending order is the threshold, k = ceil((n + 1)(1 - error_rate)); n + 1: none is.

    Args:
        samples: n, that are calibrated on.
        error_rate: in (0, 1).
    """
    return math.ceil(round((samples + 1) * (1 - error_rate), 9))  # 0.9 * 30 is a little more than 27


def threshold(scores: Tensor, error_rate: float) -> float:
    """The k-th smallest score, see `rank`; infinite, which lets every class in, where k is larger than n.

    Args:
        scores: (n,) of the right classes.
        error_rate: in (0, 1).
    """
    k = rank(len(scores), error_rate)
    return float(scores.sort().values[k - 1]) if k <= len(scores) else math.inf


def scores(probabilities: Tensor, uniform: Tensor) -> Mapping[str, Tensor]:
    """The scores of each class of each sample, by name, (N, C) float64.

    Args:
        probabilities: (N, C).
        uniform: (N,) in [0, 1), the random part of each sample.
    """
    p = probabilities.double()
    ordered, order = p.sort(dim=1, descending=True, stable=True)
    up_to = torch.empty_like(p).scatter(1, order, ordered.cumsum(1))
    return {"lac": 1 - p, "aps": up_to, "aps_randomized": up_to - (1 - uniform.double()).unsqueeze(1) * p}


def coverage_interval(calibrated: int, evaluated: int, error_rate: float, level: float) -> tuple[float, float]:
    """In which the coverage of one run lies with a probability, where calibration and evaluation samples are alike.

    Over calibration sets a coverage has the distribution Beta(k, n + 1 - k); that it is measured on m samples makes
    m times it beta-binomial.

    Args:
        calibrated: n.
        evaluated: m.
        error_rate: in (0, 1).
        level: the probability, in (0, 1).
    """
    from scipy.stats import betabinom  # here: it takes long to import

    k = rank(calibrated, error_rate)
    if k > calibrated:
        return 1.0, 1.0
    tail = (1 - level) / 2
    low, high = betabinom.ppf([tail, 1 - tail], evaluated, k, calibrated + 1 - k) / evaluated
    return float(low), float(high)
