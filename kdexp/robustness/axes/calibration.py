"""Calibration: does confidence equal accuracy, as the network is, and with a temperature fitted on val?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.require import is_count, require
from kdexp.robustness.axes.base import Axis, TestBed

if TYPE_CHECKING:
    from torch import Tensor

    from kdexp.robustness.attacks import Network
    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.grid import Batches, Condition, Found, Grid, Measured, Networks


@dataclass(frozen=True)
class Calibration(Axis):
    """Calibration on the test set, see `kdexp.metrics.calibration`.

    Attributes:
        bins: of the expected calibration error and the reliability diagram.
    """

    bins: int
    place: ClassVar[int] = 60

    def check(self) -> None:
        """See `Axis.check`."""
        require(is_count(self.bins), f"{self.setting}.bins", "must be at least 1", self.bins)

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """One condition."""
        if grid.is_dense:
            bed.notes.append(f"{self.name}: ece_adaptive left out: it takes the confidences of all pixels at once")
        return [calibrated(grid, self.name, bed.own.val(), self.bins)]

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """Every value; those that are means over samples, pixels or bins with an interval."""
        ((_, measured),) = found
        said: dict[str, object] = {}
        for name in next(iter(measured.values())).values:
            base = name.removesuffix("_scaled")
            suffix = name.removeprefix(base)
            if base in ("nll", "brier"):
                said[name] = bootstrap.entry({role: _mean(measured[role], name, bootstrap) for role in bootstrap.roles})
            elif base == "ece":
                errors = {role: self._ece(measured[role], suffix, bootstrap) for role in bootstrap.roles}
                said[name] = bootstrap.entry(errors)
            else:
                said[name] = {role: measured[role].values[name] for role in bootstrap.roles}
        return {self.name: said}

    def _ece(self, one: Measured, suffix: str, bootstrap: Bootstrap) -> Resampled:
        """Of each bin the sum of (right - confidence) is resampled; the error is the sum of their absolute values."""
        import numpy as np

        from kdexp.metrics.calibration import bin_of
        from kdexp.robustness import pixel_calibration

        if pixel_calibration.is_of_pixels(one):
            return pixel_calibration.ece(one, suffix, bootstrap)
        confidence, hit = (one.samples[name].double() for name in (f"confidence{suffix}", "hit"))
        confidence, hit = confidence.view(len(confidence), -1), hit.view(len(hit), -1)
        place = bin_of(confidence, self.bins)
        gaps = [((hit - confidence) * (place == number)).mean(1).numpy() for number in range(self.bins)]
        sums: Resampled = np.abs(bootstrap.means(np.stack(gaps, 1))).sum(1)
        return sums

    def extra(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """``reliability``: role -> plain, scaled -> count, confidence and accuracy of each bin; None in empty ones."""
        ((_, measured),) = found
        return {
            "reliability": {
                role: {name: self._diagram(one, suffix) for name, suffix in (("plain", ""), ("scaled", "_scaled"))}
                for role, one in measured.items()
            }
        }

    def _diagram(self, one: Measured, suffix: str) -> dict[str, list[float | None]]:
        from kdexp.metrics.calibration import reliability
        from kdexp.robustness import pixel_calibration
        from kdexp.robustness.bootstrap import number

        if pixel_calibration.is_of_pixels(one):
            bins = pixel_calibration.diagram(one, suffix)
        else:
            bins = reliability(one.samples[f"confidence{suffix}"], one.samples["hit"], self.bins)
        return {key: [number(v) for v in getattr(bins, key).tolist()] for key in ("count", "confidence", "accuracy")}


def _mean(one: Measured, name: str, bootstrap: Bootstrap) -> Resampled:
    from kdexp.robustness import pixel_calibration

    if pixel_calibration.is_of_pixels(one):
        return pixel_calibration.mean(one, name, bootstrap)
    return bootstrap.mean(one, name)


def calibrated(grid: Grid, axis: str, val: Batches, bins: int) -> Condition:
    """The test set as it is, and with the temperature that fits val best."""
    from kdexp.robustness import pixel_calibration
    from kdexp.robustness.grid import Condition

    def measure(networks: Networks) -> Mapping[str, Measured]:
        measured = pixel_calibration.measured if grid.is_dense else _measured
        return {role: measured(network, grid, val, bins) for role, network in networks.all.items()}

    return Condition(axis, "clean", 0, measure, {"bins": bins})


def _measured(network: Network, grid: Grid, val: Batches, bins: int) -> Measured:
    from kdexp.metrics.calibration import best_temperature, brier, log_loss, predictions, reliability
    from kdexp.robustness.grid import Measured, logits_of

    logits, target = logits_of(network, grid.batches)
    temperature = best_temperature(*logits_of(network, val), grid.kind)
    values: dict[str, float] = {"temperature": temperature}
    samples: dict[str, Tensor] = {}
    hits = predictions(logits, target, grid.kind)[1]  # a temperature changes no decision
    samples["hit"] = hits.clone()  # in sigmoid tasks it is the target itself
    for suffix, scaled in (("", logits), ("_scaled", logits / temperature)):
        confidence, _ = predictions(scaled, target, grid.kind)
        equal = reliability(confidence, hits, bins)
        nll = log_loss(scaled, target, grid.kind).view(len(scaled), -1).mean(1)
        squared = brier(scaled, target, grid.kind).view(len(scaled), -1).mean(1)
        found = {
            "ece": equal.error(),
            "max_calibration_error": equal.largest(),
            "ece_adaptive": reliability(confidence, hits, bins, adaptive=True).error(),
            "nll": float(nll.mean()),
            "brier": float(squared.mean()),
        }
        values |= {f"{name}{suffix}": value for name, value in found.items()}
        per_sample = {"confidence": confidence, "nll": nll, "brier": squared}
        samples |= {f"{name}{suffix}": value for name, value in per_sample.items()}
    return Measured(values, samples)
