"""How sure a comparison is: intervals and tests over seeds, and over the samples of one test set."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
FEWEST_PAIRS = 6
"""With n pairs that differ the signed-rank test's smallest two-sided p is 2 / 2^n: below six it cannot reach 0.05."""

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """Differences between two settings, one a seed that both were run with.

    Attributes:
        differences: theirs.
        mean: of the differences.
        std: their standard deviation (n - 1); None of fewer than two.
        interval: 95 % bootstrap interval of the mean over seeds; None of fewer than two.
        p: two-sided p of the Wilcoxon signed-rank test; None where fewer than `FEWEST_PAIRS` differ, unless none of at
            least so many does.
    """

    differences: tuple[float, ...]
    mean: float
    std: float | None
    interval: tuple[float, float] | None
    p: float | None

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``no difference shown`` or ``not enough seeds to tell``."""
        if self.p is None:
            return "not enough seeds to tell"
        if self.p >= 1 - CONFIDENCE:
            return "no difference shown"
        return "better" if self.mean > 0 else "worse"


def paired(differences: Sequence[float]) -> Paired | None:
    """Mean difference with its interval and test; None without any pair.

    Args:
        differences: one value less the other, of the same seed each.
    """
    if not differences:
        return None
    differing = int(np.count_nonzero(_unnoisy(differences)))
    testable = len(differences) >= FEWEST_PAIRS and (differing >= FEWEST_PAIRS or differing == 0)
    return Paired(
        tuple(differences),
        mean=statistics.fmean(differences),
        std=statistics.stdev(differences) if len(differences) > 1 else None,
        interval=bootstrap(differences),
        p=signed_rank(differences) if testable else None,
    )


def bootstrap(values: Sequence[float]) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean (Efron and Tibshirani 1993, section 13.3), 95 %.

    Of few values it is too narrow: of three it is about as wide as their range, whatever the confidence asked for.

    Args:
        values: one a seed, resampled with replacement 10,000 times, by the same random numbers at every call.

    Returns:
        Lower and upper end; None of fewer than two values.
    """
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(0).choice(np.asarray(values), (_RESAMPLES, len(values)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn.mean(1), (tail, 1 - tail))
    return float(low), float(high)


def signed_rank(differences: Sequence[float]) -> float:
    """Two-sided p of the Wilcoxon signed-rank test that the differences are symmetric about zero.

    Differences of zero are left out. The p is exact up to 50 differences when no two are of the same size and none is
    zero, and up to 13 otherwise; above, the normal approximation.
    """
    from scipy.stats import wilcoxon  # here: it takes longer to import than everything else together

    found = _unnoisy(differences)
    return float(wilcoxon(found).pvalue) if found.any() else 1.0


def _unnoisy(differences: Sequence[float]) -> np.ndarray:
    # Differences of shares that are equal on paper differ in the last bits.
    return np.round(differences, 12)


def wilson(share: float, samples: int) -> tuple[float, float]:
    """Interval of a share that was measured on a sample (Wilson 1927), 95 %.

    Args:
        share: of the samples that were right, in [0, 1].
        samples: how many were asked, > 0.

    Returns:
        Lower and upper end, in [0, 1].
    """
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2)
    scale = 1 + z * z / samples
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
