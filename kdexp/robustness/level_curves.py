"""Accuracy over the level of a perturbation: the amount of a noise, or the eps of an attack."""

from collections.abc import Sequence

import numpy as np

from kdexp.robustness.bootstrap import Array, Bootstrap, Resampled
from kdexp.robustness.grid import Found


def mean_accuracy(levels: Sequence[float], accuracy: Array) -> Array:
    """Mean accuracy over the range of levels, in [0, 1]: the area under the curve divided by the range (trapezoids).

    Args:
        levels: (k,), rising; the first is usually 0.
        accuracy: (..., k).

    Returns:
        (...).
    """
    pieces = np.diff(levels) * (accuracy[..., 1:] + accuracy[..., :-1]) / 2
    return np.asarray(pieces.sum(-1) / (levels[-1] - levels[0]))


def level_at_half_accuracy(levels: Sequence[float], accuracy: Sequence[float]) -> float | None:
    """The level at which accuracy is half of what it is at the first; linear between levels.

    Args:
        levels: (k,), rising.
        accuracy: (k,).

    Returns:
        The level of the first crossing; None where accuracy stays above half.
    """
    half = accuracy[0] / 2
    for place in range(1, len(levels)):
        before, after = accuracy[place - 1], accuracy[place]
        if after <= half:
            fraction = (before - half) / (before - after) if before > after else 0.0
            return float(levels[place - 1] + fraction * (levels[place] - levels[place - 1]))
    return None


def summarize(found: Found, bootstrap: Bootstrap) -> dict[str, object]:
    """Of each kind of perturbation ``mean_acc``, over its levels, and ``level_at_half_acc``."""
    return {
        name: {
            "mean_acc": bootstrap.entry(_means(levels, right)),
            "level_at_half_acc": {role: level_at_half_accuracy(levels, own[0]) for role, own in right.items()},
        }
        for name, (levels, right) in _curves(found, bootstrap).items()
    }


def mean_over_kinds(found: Found, bootstrap: Bootstrap) -> dict[str, Resampled]:
    """Role -> the mean over the kinds of `mean_accuracy`."""
    means = [_means(*curve) for curve in _curves(found, bootstrap).values()]
    return {role: np.mean([kind[role] for kind in means], axis=0) for role in bootstrap.roles}


def _means(levels: Sequence[float], right: dict[str, Resampled]) -> dict[str, Resampled]:
    return {role: mean_accuracy(levels, own) for role, own in right.items()}


def _curves(found: Found, bootstrap: Bootstrap) -> dict[str, tuple[list[float], dict[str, Resampled]]]:
    """Kind -> its levels, 0 first, and accuracy at each of them by role, (1 + n_resamples, levels)."""
    curves = {}
    for name in dict.fromkeys(condition.name for condition, _ in found):
        curve = [(condition, measured) for condition, measured in found if condition.name == name]
        levels = [0.0, *(condition.level for condition, _ in curve)]
        # Attacks may have been tried on some samples only.
        clean = bootstrap.clean_at(curve[0][0].positions)
        curves[name] = levels, bootstrap.accuracies([clean, *(measured for _, measured in curve)])
    return curves
