"""How sure a comparison is: intervals and tests over seeds, and over test samples for one run's accuracy."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
"""Fewer have neither an interval nor a test: the spread of two is next to unknown (the t quantile is 12.7)."""

TOO_FEW, NOT_TESTED = "too few seeds", "not tested"

Interval = tuple[float, float]
"""Lower and upper end."""


class Estimate(NamedTuple):
    """A mean, or one run's value, and its 95 % interval; None where there is none."""

    value: float
    interval: Interval | None = None


class Point(NamedTuple):
    """An estimate at a place on an axis: at a severity, a noise level, a fraction of the data."""

    x: float
    estimate: Estimate


@dataclass(frozen=True)
class Paired:
    """Differences between two configurations, one a seed that both were run with, and the paired t test of them.

    Interval and p are of one test: the interval leaves out 0 exactly where p is below 0.05.

    Attributes:
        differences: theirs.
        mean: of the differences.
        std: their standard deviation (n - 1); None of fewer than two.
        interval: 95 % t interval of the mean; None where there is no p.
        p: two-sided p of the paired t test; None of fewer than `FEWEST_SEEDS`, and where all differences are the same,
            but not zero, which leaves no spread to judge the mean by.
    """

    differences: tuple[float, ...]
    mean: float
    std: float | None
    interval: Interval | None
    p: float | None

    @property
    def estimate(self) -> Estimate:
        """The mean and its interval."""
        return Estimate(self.mean, self.interval)

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``not significant``, ``too few seeds`` or ``not tested``."""
        if self.p is None:
            return TOO_FEW if self.n < FEWEST_SEEDS else NOT_TESTED
        if self.p >= 1 - CONFIDENCE:
            return "not significant"
        return "better" if self.mean > 0 else "worse"


def with_p(verdict: str, p: float | None) -> str:
    """A verdict and what it is from: ``better, p = 0.031``; a verdict alone where nothing was tested."""
    return verdict if p is None else f"{verdict}, p = {p:.2g}"


def paired(differences: Sequence[float]) -> Paired | None:
    """Mean difference with its interval and test; None without any pair.

    Args:
        differences: one value less the other, of the same seed each.
    """
    if not differences:
        return None
    p, interval = t_test(differences) or (None, None)
    return Paired(
        tuple(differences),
        mean=statistics.fmean(differences),
        std=statistics.stdev(differences) if len(differences) > 1 else None,
        interval=interval,
        p=p,
    )


def t_test(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, Interval] | None:
    """The t test that the mean of some values is zero (of paired differences: the paired t test), and its interval.

    Values are taken to 12 digits: differences of shares that are equal on paper differ in the last bits, and a spread
    of 1e-17 would make any mean significant.

    Args:
        values: one a seed.
        confidence: of the interval, in (0, 1).

    Returns:
        The two-sided p, and the ends of the interval of the mean: ``m -+ t s / sqrt(n)``, at 95 % t is the 0.975
        quantile with n - 1 degrees of freedom. Zeros alone have p = 1 and the interval 0 to 0. None of fewer than
        `FEWEST_SEEDS`, and of values that are all the same, but not zero.
    """
    rounded = [round(value, 12) for value in values]
    if len(rounded) < FEWEST_SEEDS:
        return None
    if len(set(rounded)) == 1:
        return (1.0, (0.0, 0.0)) if rounded[0] == 0 else None
    from scipy.stats import ttest_1samp  # here: it takes longer to import than everything else together

    found = ttest_1samp(rounded, 0.0)
    low, high = found.confidence_interval(confidence)
    return float(found.pvalue), (float(low), float(high))


def t_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % t interval of a mean over seeds; None where `t_test` has none."""
    found = t_test(values)
    return None if found is None else found[1]


def is_equivalent(differences: Sequence[float], margin: float) -> bool | None:
    """Two one-sided t tests at 5 % that a mean difference is above -margin and below margin (Schuirmann 1987).

    Both hold where the 90 % t interval of the mean lies wholly inside of -margin to margin. That a difference is not
    significant says no such thing.

    Args:
        differences: one value less the other, of the same seed each.
        margin: > 0, set before anybody has looked.

    Returns:
        None where `t_test` has no interval.
    """
    found = t_test(differences, 2 * CONFIDENCE - 1)
    return None if found is None else -margin < found[1][0] and found[1][1] < margin


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction (1979): the p of m tests, so that 0.05 is the chance that any is significant by luck alone.

    The i-th smallest becomes the largest of ``min(1, (m - j + 1) p_j)`` over j = 1 ... i.

    Args:
        p_values: of one family; None: not tested, which counts for no test.

    Returns:
        One for each, in the same order.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for smaller, (p, place) in enumerate(tested):
        adjusted[place] = largest = max(largest, min(1.0, (len(tested) - smaller) * p))
    return adjusted


def wilson(share: float, samples: int) -> Interval:
    """Interval of a fraction that was measured on a sample (Wilson 1927), 95 %.

    Args:
        share: of the samples that were right, in [0, 1].
        samples: how many there were, > 0.

    Returns:
        Lower and upper end, in [0, 1].
    """
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2)
    scale = 1 + z * z / samples
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
