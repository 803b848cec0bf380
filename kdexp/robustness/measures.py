"""What a grid of cells says of a network: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4, and dose curves.

A cell is one corruption at one severity, or one perturbation at one dose. Error rates and accuracies are arrays whose
last axis is the cells; leading axes, such as those of a bootstrap, are kept.
"""

from collections.abc import Sequence

import numpy as np

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


def resampled(correct: Array, resamples: int, seed: int, chunk: int = 100) -> Array:
    """Accuracies in bootstrap samples of the test set: the same samples for every row.

    Args:
        correct: (rows, n): what each network, in each cell, got right of each sample; in [0, 1].
        resamples: how many.
        seed: of the choice.
        chunk: as many at once, to save memory.

    Returns:
        (resamples, rows).
    """
    rng, n = np.random.default_rng(seed), correct.shape[1]
    transposed = correct.astype(np.float32).T
    parts = []
    for start in range(0, resamples, chunk):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(chunk, resamples - start))
        parts.append(counts.astype(np.float32) @ transposed / n)
    return np.concatenate(parts).astype(float)


def interval(values: Array, confidence: float) -> tuple[float, float] | None:
    """The percentile interval of bootstrap values, (resamples,); None where some are not defined."""
    if np.isnan(values).any():
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
