"""White-box attacks at rising eps, and checks that they work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal, TypedDict

from kdexp.config.renamed import before
from kdexp.config.require import is_count, is_number, require, require_numbers
from kdexp.robustness.axes.base import Axis, TestBed, check_kinds

if TYPE_CHECKING:
    from torch import Tensor

    from kdexp.contracts import Batch
    from kdexp.robustness.attacks import Attack, Network
    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.grid import Condition, Found, Grid, Measured, Networks

MORE_STEPS, UNBOUNDED = "attack_more_steps", "attack_unbounded"
"""`Condition.axis` of the attacks that are there for the checks alone."""


class Kind(TypedDict):
    """The settings of an attack; rel_stepsize is a fraction of eps."""

    norm: Literal["linf", "l2"]
    eps: Sequence[float]
    steps: int
    rel_stepsize: float
    random_start: bool


class AutoAttack(TypedDict):
    """The settings of `kdexp.robustness.attacks.autoattack`."""

    norm: Literal["linf", "l2"]
    eps: float
    attacks: Sequence[str] | None


# Within this many points of the measure an attack that ought to be the stronger one may do worse by chance.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Attacks(Axis):
    """Attacks on each network for itself.

    Attributes:
        samples: of the test samples at most, stratified by class; None: all.
        tabular_eps_scale: eps of tables, whose columns are standardised, as a multiple of that of pixels.
        kinds: name -> settings.
        checks: whether more steps, and no bound, are tried too.
        autoattack: settings of AutoAttack; None: not run.
    """

    samples: int | None
    tabular_eps_scale: float
    kinds: Mapping[str, Kind]
    checks: bool
    autoattack: AutoAttack | None
    place: ClassVar[int] = 30
    needs_gradients: ClassVar[bool] = True

    def check(self) -> None:
        """See `Axis.check`."""
        count, scale = self.samples, self.tabular_eps_scale
        require(count is None or is_count(count), f"{self.setting}.samples", "must be null or at least 1", count)
        require(is_number(scale) and scale > 0, f"{self.setting}.tabular_eps_scale", "must be > 0", scale)
        check_kinds(self.setting, self.kinds)
        for name, kind in self.kinds.items():
            _check_kind(f"{self.setting}.kinds.{name}", kind)

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """A condition for each attack and eps, those of the checks behind them; none for texts."""
        if grid.is_text:
            bed.notes.append(f"{self.name} left out: they change inputs a little, and characters cannot be")
            return []
        part = bed.own.test_part(self.name, self.samples)
        grid = replace(grid, part=part)
        conditions = [condition for name, kind in self.kinds.items() for condition in self._of_kind(name, kind, grid)]
        if self.autoattack:
            if grid.is_dense:
                bed.notes.append(f"{self.name}: autoattack left out: it is for one class a sample")
            elif grid.is_image and grid.kind == "multiclass":
                conditions.append(_autoattack(grid, self.name, **self.autoattack))
            else:
                bed.notes.append("autoattack is left out: it is for images of several classes")
        return [replace(condition.on(part), positions=part.positions) for condition in conditions]

    def _of_kind(self, name: str, kind: Kind, grid: Grid) -> Iterator[Condition]:
        curve = [self._attack(name, kind, eps, grid) for eps in kind["eps"]]
        for attack in curve:
            yield attacked(grid, self.name, name, attack)
        if self.checks and kind["steps"] > 1:
            middle = curve[len(curve) // 2]
            yield attacked(grid, MORE_STEPS, name, replace(middle, steps=4 * middle.steps))
            # Of several labels, or pixels, not all can be made wrong at once.
            if kind["norm"] == "linf" and grid.kind != "multilabel" and not grid.is_dense:
                whole = 1.0 if grid.is_image else 100.0
                unbounded = replace(middle, eps=whole, abs_stepsize=whole / 10, steps=50, random_start=False)
                yield attacked(grid, UNBOUNDED, name, unbounded)

    def _attack(self, name: str, kind: Kind, eps: float, grid: Grid) -> Attack:
        from kdexp.robustness.attacks import PIXELS, Attack

        eps = eps if grid.is_image else eps * self.tabular_eps_scale
        bounds = PIXELS if grid.is_image else None
        start, stepsize = kind["random_start"], eps * kind["rel_stepsize"]
        try:
            return Attack(kind["norm"], eps, kind["steps"], stepsize, random_start=start, bounds=bounds)
        except ValueError as error:
            raise ValueError(f"{self.setting}.kinds.{name}: {error}") from error

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """For each attack what the curve of the measure over eps says."""
        from kdexp.robustness.level_curves import summarize

        return {self.name: summarize(self._of_report(found), bootstrap)}

    def measure(self, found: Found, bootstrap: Bootstrap) -> dict[str, dict[str, Resampled]]:
        """The mean over attacks and eps."""
        from kdexp.robustness.level_curves import mean_over_kinds

        return {self.name: mean_over_kinds(self._of_report(found), bootstrap)}

    def _of_report(self, found: Found) -> Found:
        return [(condition, measured) for condition, measured in found if condition.axis == self.name]

    def extra(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """What must hold of attacks that work: each has ``model``, ``check``, ``holds`` and ``detail``.

        Where one fails, gradients are masked, and robust accuracy is not what it seems (Athalye, Carlini and Wagner
        2018, arXiv 1802.00420, section 3.1).
        """
        values = {
            (condition.axis, condition.name, condition.level): {
                role: one.values[bootstrap.measure] for role, one in measured.items()
            }
            for condition, measured in found
        }
        checks = []
        for role in found[0][1]:
            for what, weaker, stronger in self._pairs(list(values)):
                allowed = values[weaker][role] if weaker is not None else 0.0
                left = values[stronger][role]
                change = f"{bootstrap.measure} {100 * allowed:.1f} -> {100 * left:.1f} %"
                detail = change if weaker else f"{100 * left:.1f} % left"
                checks.append({"model": role, "check": what, "holds": left <= allowed + _TOLERANCE, "detail": detail})
        return {"attack_checks": checks}

    def _pairs(self, attacks: Sequence[_Key]) -> list[tuple[str, _Key | None, _Key]]:
        """What is checked; an attack, None for none at all; and one that must not leave more than that."""
        pairs: list[tuple[str, _Key | None, _Key]] = []
        for axis, name, eps in attacks:
            if axis == MORE_STEPS:
                weaker = (self.name, name, eps)
                pairs.append((f"{name}: more steps do not help the defender", weaker, (axis, name, eps)))
            elif axis == UNBOUNDED:
                pairs.append((f"{name}: when every input is allowed nothing is right", None, (axis, name, eps)))
        for name in dict.fromkeys(name for axis, name, _ in attacks if axis == self.name):
            curve = [key for key in attacks if key[:2] == (self.name, name)]
            pairs += [(f"{name}: a larger eps does not help the defender", *two) for two in pairwise(curve)]
        return pairs


_Key = tuple[str, str, float]
"""`Condition.axis`, name and eps of an attack."""


def _check_kind(setting: str, kind: Kind) -> None:
    """What `kdexp.robustness.attacks.Attack` takes for granted."""
    keys = Kind.__annotations__
    require(set(kind) == set(keys), setting, f"must have {', '.join(keys)}", ", ".join(map(str, kind)))
    require_numbers(f"{setting}.eps", kind["eps"])
    require(is_count(kind["steps"]), f"{setting}.steps", "must be at least 1", kind["steps"])
    step, start = kind["rel_stepsize"], kind["random_start"]
    require(is_number(step) and 0 < step <= 1, f"{setting}.rel_stepsize", "must be in (0, 1]", step)
    require(isinstance(start, bool), f"{setting}.random_start", "must be true or false", start)


def attacked(grid: Grid, axis: str, name: str, attack: Attack) -> Condition:
    """The test data under an attack, on each network for itself."""
    from kdexp.robustness.attacks import untargeted_loss
    from kdexp.robustness.grid import Condition

    def perturb(batch: Batch, network: Network) -> Tensor:
        objective = untargeted_loss(network, batch.target, grid.kind)
        return attack(objective, batch.inputs, batch.index, seed=grid.seed)

    settings = before({"attack": asdict(attack)})["attack"]  # a part of the condition's key
    return Condition(axis, name, attack.eps, partial(grid.measure, white_box=perturb), settings, attack.norm)


def _autoattack(
    grid: Grid, axis: str, norm: Literal["linf", "l2"], eps: float, attacks: Sequence[str] | None
) -> Condition:
    """The test data under AutoAttack, on each network for itself; what its code doubts is noted."""
    from kdexp.robustness.attacks import autoattack
    from kdexp.robustness.grid import Condition

    def measure(networks: Networks) -> dict[str, Measured]:
        doubts: dict[Network, list[str]] = {network: [] for network in networks.all.values()}

        def perturb(batch: Batch, network: Network) -> Tensor:
            found, flags = autoattack(
                network, batch.inputs, batch.target, norm=norm, eps=eps, seed=grid.seed, attacks=attacks
            )
            doubts[network] += [flag for flag in flags if flag not in doubts[network]]
            return found

        found = grid.measure(networks, white_box=perturb)
        return {name: replace(one, notes=doubts[networks.all[name]]) for name, one in found.items()}

    settings = {"norm": norm, "attacks": "standard" if attacks is None else list(attacks)}
    return Condition(axis, f"autoattack_{norm}", eps, measure, settings, norm)
