"""Mean corruption errors: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.

A condition is one corruption at one severity. Error rates are arrays whose last axis is the conditions; leading axes,
such as those of a bootstrap, are kept.
"""

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def mce_unnormalized(errors: Array, corruptions: Sequence[str]) -> Array:
    """Mean over corruptions of the mean error over severities: not normalised by any network.

    This is what is published for CIFAR-10-C and CIFAR-100-C (Hendrycks et al. 2020, AugMix, arXiv 1912.02781).

    Args:
        errors: (..., conditions), in [0, 1].
        corruptions: the corruption of each condition.

    Returns:
        (...).
    """
    totals, counts = _by_corruption(errors, corruptions)
    return np.asarray((totals / counts).mean(-1))


def mce_relative_to(errors: Array, reference: Array, corruptions: Sequence[str]) -> Array:
    """Mean over corruptions of ``CE_c = sum_s E_sc / sum_s E_sc of the reference`` (their equation 1).

    Their reference is AlexNet; kdexp's is the control, and 1 means as many errors as the control makes.

    Args:
        errors: (..., conditions).
        reference: of the same shape.
        corruptions: the corruption of each condition.

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

    It measures how much is lost, of whatever there was to lose. It misleads where the reference loses next to nothing.

    Args:
        errors: (..., conditions).
        clean: (...), the error on clean data.
        reference: like errors.
        reference_clean: like clean.
        corruptions: the corruption of each condition.

    Returns:
        (...); NaN where the reference loses nothing under some corruption.
    """
    own, _ = _by_corruption(errors - np.asarray(clean)[..., None], corruptions)
    theirs, _ = _by_corruption(reference - np.asarray(reference_clean)[..., None], corruptions)
    return np.asarray(_ratio(own, theirs).mean(-1))


def _by_corruption(values: Array, corruptions: Sequence[str]) -> tuple[Array, Array]:
    """Sums (..., K) and counts (K,) over the conditions of each of K corruptions."""
    names = list(dict.fromkeys(corruptions))
    member = np.array([[name == own for name in names] for own in corruptions], dtype=float)
    return values @ member, member.sum(0)


def _ratio(own: Array, theirs: Array) -> Array:
    undefined = np.full(np.broadcast(own, theirs).shape, np.nan)
    return np.asarray(np.divide(own, theirs, out=undefined, where=theirs > 0))
