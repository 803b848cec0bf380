"""Sets of classes in place of one: how large must they be to hold the right one at a set rate?

Calibrated on a part of the test samples, since val has chosen the best epoch, and evaluated on the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.require import is_number, require
from kdexp.robustness.axes.base import Axis, TestBed

if TYPE_CHECKING:
    from torch import Tensor

    from kdexp.robustness.attacks import Network
    from kdexp.robustness.bootstrap import Bootstrap
    from kdexp.robustness.grid import Condition, Found, Grid, Measured, Networks

_PER_SAMPLE = ("coverage", "set_size", "empty_sets")
_WORST = "worst_class_coverage"


@dataclass(frozen=True)
class Conformal(Axis):
    """Split conformal prediction: see `kdexp.robustness.conformal_sets`.

    Attributes:
        error_rate: how often a set may miss the right class, in (0, 1): alpha in the papers.
        calibration_fraction: of the test samples, in (0, 1), drawn at random and stratified by class.
    """

    error_rate: float
    calibration_fraction: float
    place: ClassVar[int] = 65

    def check(self) -> None:
        """See `Axis.check`."""
        for name in ("error_rate", "calibration_fraction"):
            value = getattr(self, name)
            require(is_number(value) and 0 < value < 1, f"{self.setting}.{name}", "must be in (0, 1)", value)

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """The test set as it is; none of masks, and of several labels a sample."""
        from kdexp.data.splits import stratified_sample
        from kdexp.robustness.conformal_sets import coverage_interval, rank
        from kdexp.robustness.grid import Condition

        if grid.kind == "multilabel" or grid.is_dense:
            found = "targets are masks" if grid.is_dense else "the kind is multilabel"
            bed.notes.append(f"{self.name} left out: a set is of one class a sample, and {found}")
            return []
        target = grid.part.split.target
        n = round(self.calibration_fraction * len(target))
        m = len(target) - n
        rule = f"must leave samples on both sides of {len(target)}"
        require(n > 0 and m > 0, f"{self.setting}.calibration_fraction", rule, self.calibration_fraction)
        drawn = stratified_sample(target, n, grid.seed)
        low, high = coverage_interval(n, m, self.error_rate, 0.95)
        lies = f"the coverage of 95 % of such runs lies in {low:.3f} to {high:.3f}, around {1 - self.error_rate:g}"
        if rank(n, self.error_rate) > n:
            lies = f"too few of the former for {self.setting}.error_rate={self.error_rate:g}: every set has all classes"
        bed.notes.append(f"{self.name}: calibrated on {n} test samples and evaluated on {m}: {lies}")

        def measure(networks: Networks) -> Mapping[str, Measured]:
            return {role: _measured(network, grid, drawn, self.error_rate) for role, network in networks.all.items()}

        settings = {"error_rate": self.error_rate, "calibration_fraction": self.calibration_fraction}
        return [Condition(self.name, "clean", 0, measure, settings)]

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """Of each score's sets coverage, mean size, the fraction that is empty, and the coverage of the worst class."""
        from kdexp.robustness.bootstrap import number

        ((_, measured),) = found
        names = [name for name in next(iter(measured.values())).values if name.startswith("coverage_")]
        said: dict[str, dict[str, object]] = {}
        for score in (name.removeprefix("coverage_") for name in names):
            said[score] = {
                name: bootstrap.entry({role: bootstrap.mean(one, f"{name}_{score}") for role, one in measured.items()})
                for name in _PER_SAMPLE
            }
            worst = {role: number(one.values[f"{_WORST}_{score}"]) for role, one in measured.items()}
            said[score][_WORST] = worst
        return {self.name: said}


def _measured(network: Network, grid: Grid, drawn: Tensor, error_rate: float) -> Measured:
    import torch
    import torch.nn.functional as F

    from kdexp.data.stateless_rng import RngStream, uniform
    from kdexp.robustness.conformal_sets import scores, threshold
    from kdexp.robustness.grid import Measured, logits_of

    logits, target = logits_of(network, grid.batches)
    logits = torch.cat((torch.zeros_like(logits), logits), 1) if grid.kind == "binary" else logits
    u = uniform(grid.seed, 0, grid.part.split.index, 1, RngStream.CONFORMAL)[:, 0]
    is_calibrated = torch.zeros(len(target), dtype=torch.bool).index_fill(0, drawn, True)
    truth = F.one_hot(target, logits.shape[1]).bool()
    values: dict[str, float] = {}
    samples: dict[str, Tensor] = {}
    for name, score in scores(logits.double().softmax(1), u).items():
        chosen = (score <= threshold(score[truth][is_calibrated], error_rate))[~is_calibrated]
        label = truth[~is_calibrated]
        covered, size = (chosen & label).any(1).float(), chosen.sum(1).float()
        of_class = (covered.double() @ label.double()) / label.sum(0)
        found = {"coverage": covered, "set_size": size, "empty_sets": (size == 0).float()}
        values |= {f"{key}_{name}": float(each.double().mean()) for key, each in found.items()}
        values[f"{_WORST}_{name}"] = float(of_class.nan_to_num(torch.inf).min())
        samples |= {f"{key}_{name}": each for key, each in found.items()}
    return Measured(values, samples)
