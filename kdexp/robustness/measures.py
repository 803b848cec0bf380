"""What a grid of cells says of a network: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4, and dose curves.

A cell is one corruption at one severity, or one perturbation at one dose. Error rates and accuracies are arrays whose
last axis is the cells; leading axes, such as those of a bootstrap, are kept.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from kdexp.metrics.ranking import of_two

Array = np.ndarray


def mce_raw(errors: Array, corruptions: Sequence[str]) -> Array:
    """Mean over corruptions of the mean error over severities: not normalised by any network.

    This is what is published for CIFAR-10-C and CIFAR-100-C (Hendrycks et al. 2020, AugMix, arXiv 1912.02781).

    Args:
        errors: (..., cells), in [0, 1].
        corruptions: the corruption of each cell.

    Returns:
        (...).
    """
    totals, counts = _by_corruption(errors, corruptions)
    return np.asarray((totals / counts).mean(-1))


def mce_relative_to(errors: Array, reference: Array, corruptions: Sequence[str]) -> Array:
    """Mean over corruptions of ``CE_c = sum_s E_sc / sum_s E_sc of the reference`` (their equation 1).

    Their reference is AlexNet; kdexp's is the control, and 1 means as many errors as the control makes.

    Args:
        errors: (..., cells).
        reference: of the same shape.
        corruptions: the corruption of each cell.

    Returns:
        (...); NaN where the reference makes no error under some corruption.
    """
    own, _ = _by_corruption(errors, corruptions)
    theirs, _ = _by_corruption(reference, corruptions)
    return np.asarray(_ratio(own, theirs).mean(-1))


def relative_mce(
    errors: Array, clean: Array, reference: Array, reference_clean: Array, corruptions: Sequence[str]
) -> Array:
    """Mean over corruptions of ``sum_s (E_sc - E_clean)`` as a multiple of the reference's: their section 4.

    It asks how much is lost, of whatever there was to lose. It misleads where the reference loses next to nothing.

    Args:
        errors: (..., cells).
        clean: (...), the error on clean data.
        reference: like errors.
        reference_clean: like clean.
        corruptions: the corruption of each cell.

    Returns:
        (...); NaN where the reference loses nothing under some corruption.
    """
    own, _ = _by_corruption(errors - np.asarray(clean)[..., None], corruptions)
    theirs, _ = _by_corruption(reference - np.asarray(reference_clean)[..., None], corruptions)
    return np.asarray(_ratio(own, theirs).mean(-1))


def _by_corruption(values: Array, corruptions: Sequence[str]) -> tuple[Array, Array]:
    """Sums (..., K) and counts (K,) over the cells of each of K corruptions."""
    names = list(dict.fromkeys(corruptions))
    member = np.array([[name == own for name in names] for own in corruptions], dtype=float)
    return values @ member, member.sum(0)


def _ratio(own: Array, theirs: Array) -> Array:
    undefined = np.full(np.broadcast(own, theirs).shape, np.nan)
    return np.asarray(np.divide(own, theirs, out=undefined, where=theirs > 0))


def area_under(doses: Sequence[float], accuracy: Array) -> Array:
    """Area under accuracy over dose, as a share of the range of doses: the mean accuracy over it, in [0, 1].

    Args:
        doses: (cells,), rising; the first is usually 0.
        accuracy: (..., cells).

    Returns:
        (...).
    """
    pieces = np.diff(doses) * (accuracy[..., 1:] + accuracy[..., :-1]) / 2
    return np.asarray(pieces.sum(-1) / (doses[-1] - doses[0]))


def halving_dose(doses: Sequence[float], accuracy: Sequence[float]) -> float | None:
    """The dose at which accuracy is half of what it is at the first; linear between doses.

    Args:
        doses: (cells,), rising.
        accuracy: (cells,).

    Returns:
        The dose of the first crossing; None where accuracy stays above half.
    """
    half = accuracy[0] / 2
    for place in range(1, len(doses)):
        before, after = accuracy[place - 1], accuracy[place]
        if after <= half:
            share = (before - half) / (before - after) if before > after else 0.0
            return float(doses[place - 1] + share * (doses[place] - doses[place - 1]))
    return None


def resampled(values: Array, resamples: int, seed: int) -> Array:
    """Means over the test set, and over bootstrap samples of it (Efron and Tibshirani 1993, chapter 13).

    Whatever is resampled with the same arguments is resampled alike, so that differences are of paired samples.

    Args:
        values: (n, k): k values of each test sample.
        resamples: how many.
        seed: of the choice.

    Returns:
        (1 + resamples, k); the first row is of the test set itself.
    """
    rows = values.astype(np.float32)
    counts = _counts(len(rows), resamples, seed)
    parts = [rows.mean(0, dtype=float, keepdims=True)]
    parts += [chunk.astype(np.float32) @ rows / len(rows) for chunk in _chunks(counts)]
    return np.concatenate(parts).astype(float)


def resampled_auroc(own: Array, other: Array, resamples: int, seed: int) -> Array:
    """Area under the ROC curve of a score, of two sets and of bootstrap samples of both.

    Args:
        own: (n,) scores of what ought to score high.
        other: (m,) scores of what ought to score low.
        resamples: how many.
        seed: of the choice.

    Returns:
        (1 + resamples,); the first is of the sets themselves.
    """
    scores = torch.from_numpy(own), torch.from_numpy(other)
    parts = [of_two(*scores).area().view(1)]
    several = zip(
        _chunks(_counts(len(own), resamples, seed)), _chunks(_counts(len(other), resamples, seed + 1)), strict=True
    )
    for counts in several:
        parts.append(of_two(*scores, *(torch.from_numpy(count).long() for count in counts)).area())
    return torch.cat(parts).numpy()


@lru_cache(maxsize=4)
def _counts(n: int, resamples: int, seed: int) -> Array:
    """How often each of n samples is in each bootstrap sample, (resamples, n) uint8."""
    rng = np.random.default_rng([seed, n])
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n).astype(np.uint8) for _ in range(resamples)])


def _chunks(counts: Array) -> Iterator[Array]:
    return (counts[start : start + 100] for start in range(0, len(counts), 100))


def interval(values: Array, confidence: float) -> tuple[float, float] | None:
    """The percentile interval of what was resampled.

    Args:
        values: (1 + resamples,), as `resampled` gives them.
        confidence: in (0, 1).

    Returns:
        Lower and upper end; None where the value is not defined in some of the samples.
    """
    if np.isnan(values).any():
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return float(low), float(high)
