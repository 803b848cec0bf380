"""Calibration of masks: over the pixels that have a class, of which only sums over each image are kept.

The pixels of a test set are too many to be kept. A binary mask is one of two classes with the logits (0, z), as in
`kdexp.metrics.segmentation`. An image drawn twice by the bootstrap has its pixels twice.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kdexp.contracts import Kind
from kdexp.metrics.calibration import (
    Reliability,
    best_temperature,
    bin_of,
    bin_sums,
    brier,
    from_sums,
    log_loss,
    predictions,
)
from kdexp.metrics.rows import rows
from kdexp.metrics.segmentation import class_logits
from kdexp.robustness.attacks import Network
from kdexp.robustness.bootstrap import Bootstrap, Resampled
from kdexp.robustness.grid import Batches, Grid, Measured, outputs

FITTED = 4096
"""The temperature is fitted on so many pixels of each val image at most, evenly spaced among those with a class."""

_BINS = "bins"


def measured(network: Network, grid: Grid, val: Batches, bins: int) -> Measured:
    """Of the test set, as the network is and with the temperature that fits val best.

    Args:
        network: to (N, C, H, W) logits.
        grid: of the test set.
        val: what the temperature is fitted on.
        bins: of equal width, of the expected calibration error.

    Returns:
        Values, and of each image the sums over its pixels: ``bins``, (n, 3, bins) float64, see
        `kdexp.metrics.calibration.bin_sums`, ``nll`` and ``brier``, (n,) float64; the same ``.._scaled``.
    """
    fitted = [_spread(*image) for image in _images(network, val, grid.kind)]
    chosen, labels = (torch.cat(parts) for parts in zip(*fitted, strict=True))
    temperature = best_temperature(chosen, labels, "multiclass")
    found: dict[str, list[Tensor]] = {}
    for logits, label in _images(network, grid.batches, grid.kind):
        for suffix, scaled in (("", logits), ("_scaled", logits / temperature)):
            confidence, right = predictions(scaled, label, "multiclass")
            sums = {
                _BINS: bin_sums(bin_of(confidence, bins), confidence, right, torch.ones_like(confidence), bins),
                "nll": log_loss(scaled, label, "multiclass").double().sum(),
                "brier": brier(scaled, label, "multiclass").double().sum(),
            }
            for name, value in sums.items():
                found.setdefault(f"{name}{suffix}", []).append(value)
    samples = {name: torch.stack(values) for name, values in found.items()}
    return Measured({"temperature": temperature} | _values(samples), samples)


def _values(samples: dict[str, Tensor]) -> dict[str, float]:
    values: dict[str, float] = {}
    for suffix in ("", "_scaled"):
        bins = from_sums(samples[f"{_BINS}{suffix}"].sum(0))
        values |= {f"ece{suffix}": bins.error(), f"max_calibration_error{suffix}": bins.largest()}
        pixels = bins.count.sum()
        values |= {f"{name}{suffix}": float(samples[f"{name}{suffix}"].sum() / pixels) for name in ("nll", "brier")}
    return values


def is_of_pixels(one: Measured) -> bool:
    """Whether this was measured by `measured`."""
    return _BINS in one.samples


def mean(one: Measured, name: str, bootstrap: Bootstrap) -> Resampled:
    """The mean over pixels of what was summed under a name, (1 + n_resamples,)."""
    found = bootstrap.means(torch.stack((one.samples[name], _pixels(one)), 1).numpy())
    total: Resampled = found[:, 0] / found[:, 1]
    return total


def ece(one: Measured, suffix: str, bootstrap: Bootstrap) -> Resampled:
    """The expected calibration error, (1 + n_resamples,)."""
    _, confidence, right = one.samples[f"{_BINS}{suffix}"].unbind(1)
    found = bootstrap.means(torch.cat((right - confidence, _pixels(one).unsqueeze(1)), 1).numpy())
    error: Resampled = np.abs(found[:, :-1]).sum(1) / found[:, -1]
    return error


def diagram(one: Measured, suffix: str) -> Reliability:
    """The reliability diagram of all pixels."""
    return from_sums(one.samples[f"{_BINS}{suffix}"].sum(0))


def _pixels(one: Measured) -> Tensor:
    """(n,) float64: how many of each image have a class."""
    return one.samples[_BINS][:, 0].sum(1)


def _images(network: Network, batches: Batches, kind: Kind) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each image the logits (pixels, classes) and the classes (pixels,) of the pixels that have one."""
    for logits, target in outputs(network, batches):
        for image, mask in zip(class_logits(logits, kind), target, strict=True):
            known = mask.flatten() >= 0
            yield rows(image.unsqueeze(0))[known], mask.flatten()[known]


def _spread(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """`FITTED` of them at most, evenly spaced."""
    if len(label) <= FITTED:
        return logits, label
    kept = torch.arange(FITTED) * (len(label) - 1) // (FITTED - 1)
    return logits[kept], label[kept]
