"""The measure over the level of a perturbation: the amount of a noise, or the eps of an attack."""

from collections.abc import Sequence

import numpy as np

from kdexp.robustness.bootstrap import Array, Bootstrap, Resampled
from kdexp.robustness.grid import Found


def mean_over_levels(levels: Sequence[float], values: Array) -> Array:
    """The mean of a measure over the range of levels: the area under the curve divided by the range (trapezoids).

    Args:
        levels: (k,), rising; the first is usually 0.
        values: (..., k).

    Returns:
        (...).
    """
    pieces = np.diff(levels) * (values[..., 1:] + values[..., :-1]) / 2
    return np.asarray(pieces.sum(-1) / (levels[-1] - levels[0]))


def level_at_half(levels: Sequence[float], values: Sequence[float]) -> float | None:
    """The level at which a measure is half of what it is at the first; linear between levels.

    Args:
        levels: (k,), rising.
        values: (k,).

    Returns:
        The level of the first crossing; None where the measure stays above half.
    """
    half = values[0] / 2
    for place in range(1, len(levels)):
        before, after = values[place - 1], values[place]
        if after <= half:
            fraction = (before - half) / (before - after) if before > after else 0.0
            return float(levels[place - 1] + fraction * (levels[place] - levels[place - 1]))
    return None


def summarize(found: Found, bootstrap: Bootstrap) -> dict[str, object]:
    """Of each kind of perturbation ``mean_acc``, over its levels, and ``level_at_half_acc``; acc being the measure."""
    return {
        name: {
            f"mean_{bootstrap.measure}": bootstrap.entry(_means(levels, values)),
            f"level_at_half_{bootstrap.measure}": {role: level_at_half(levels, own[0]) for role, own in values.items()},
        }
        for name, (levels, values) in _curves(found, bootstrap).items()
    }


def mean_over_kinds(found: Found, bootstrap: Bootstrap) -> dict[str, Resampled]:
    """Role -> the mean over the kinds of `mean_over_levels`."""
    means = [_means(*curve) for curve in _curves(found, bootstrap).values()]
    return {role: np.mean([kind[role] for kind in means], axis=0) for role in bootstrap.roles}


def _means(levels: Sequence[float], values: dict[str, Resampled]) -> dict[str, Resampled]:
    return {role: mean_over_levels(levels, own) for role, own in values.items()}


def _curves(found: Found, bootstrap: Bootstrap) -> dict[str, tuple[list[float], dict[str, Resampled]]]:
    """Kind -> its levels, 0 first, and the measure at each of them by role, (1 + n_resamples, levels)."""
    curves = {}
    for name in dict.fromkeys(condition.name for condition, _ in found):
        curve = [(condition, measured) for condition, measured in found if condition.name == name]
        levels = [0.0, *(condition.level for condition, _ in curve)]
        # Attacks may have been tried on some samples only.
        clean = bootstrap.clean_at(curve[0][0].positions)
        curves[name] = levels, bootstrap.by_role([clean, *(measured for _, measured in curve)])
    return curves
