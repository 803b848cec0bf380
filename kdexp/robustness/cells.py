"""The grid: each perturbation of the test data at each dose is a cell, in which all networks are measured at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kdexp.contracts import Batch, Task
from kdexp.metrics import Metrics, calibration
from kdexp.metrics.rows import right
from kdexp.robustness import attacks, features, ood
from kdexp.robustness.attacks import Attack, Network, of_labels
from kdexp.robustness.corruption import Corruption, DoseCurve
from kdexp.robustness.published import PublishedSet

Batches = Iterable[Batch]
"""In the order of the split, on the networks' device; inputs as `kdexp.robustness.attacks` has them."""


Perturb = Callable[[Batch], Tensor]
"""The inputs of a batch, perturbed."""

WhiteBox = Callable[[Batch, Network], Tensor]
"""The same, for the network that will get them."""


@dataclass(frozen=True)
class Networks:
    """The networks that are measured side by side.

    Attributes:
        all: name -> network, in eval mode: inputs (N, ...) to logits (N, C).
        teachers: name -> name of its teacher, for those that have one. It stands before them in all.
        represent: name -> what gives its representations (N, D), for those that have one set of them.
    """

    all: Mapping[str, Network]
    teachers: Mapping[str, str] = field(default_factory=dict)
    represent: Mapping[str, Network] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What was found of one network in one cell.

    Attributes:
        values: by name; what is not defined is not there.
        samples: name -> (n, ...), for each sample: ``right``, the share of its labels that is right, and others.
        notes: what a reader must know of them.
    """

    values: Mapping[str, float]
    samples: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Cell:
    """One perturbation of the test data at one dose.

    Attributes:
        axis: the part of the report that it belongs to.
        name: of the perturbation.
        dose: severity, amount of noise or eps; 0 for none.
        measure: finds the values of every network.
        settings: all that these depend on besides networks and data; plain values.
        family: of the perturbation, for means.
        positions: (n,) int64, which samples of the test set it is measured on; None: all, or those of another set.
    """

    axis: str
    name: str
    dose: float
    measure: Callable[[Networks], Mapping[str, Measured]]
    settings: Mapping[str, Any]
    family: str = ""
    positions: Tensor | None = None


@dataclass(frozen=True)
class Grid:
    """Makes the cells of one test set.

    Attributes:
        batches: the test set.
        task: what logits and targets mean.
        outputs: C, the number of logits.
        shape: of a sample.
        samples: in the test set.
        seed: of all random numbers.
    """

    batches: Batches
    task: Task
    outputs: int
    shape: Sequence[int]
    samples: int
    seed: int

    def clean(self) -> Cell:
        """The test set as it is."""
        return self._shared("clean", "clean", 0, "", lambda batch: batch.inputs)

    def corruption(self, name: str, corruption: Corruption, severity: int) -> Cell:
        """One of the corruptions that are computed here.

        Raises:
            ValueError: severity is not 1 to 5.
        """
        settings = {"operator": _name(corruption.operator), **corruption.parameters(severity, self.shape)}

        def perturb(batch: Batch) -> Tensor:
            return corruption(batch.inputs, batch.index, severity=severity, seed=self.seed)

        return self._shared("corruptions_lite", name, severity, corruption.family, perturb, **settings)

    def published(self, published: PublishedSet, name: str, severity: int) -> Cell:
        """One corruption of a published set of test images."""
        return self._shared(
            published.name,
            name,
            severity,
            published.families[name],
            lambda batch: published.images(name, severity, batch.index),
        )

    def noise(self, name: str, curve: DoseCurve, dose: float) -> Cell:
        """One dose of a noise."""
        parameters = {curve.parameter: dose}

        def perturb(batch: Batch) -> Tensor:
            return curve.operator(batch.inputs, batch.index, seed=self.seed, **parameters)

        return self._shared("noise_dose", name, dose, "noise", perturb, operator=_name(curve.operator), **parameters)

    def attack(self, name: str, attack: Attack, axis: str = "attacks") -> Cell:
        """A white-box attack, on each network for itself."""

        def perturb(batch: Batch, network: Network) -> Tensor:
            objective = of_labels(network, batch.target, self.task)
            return attack(objective, batch.inputs, batch.index, seed=self.seed)

        measure = partial(_measured, grid=self, batches=self.batches, white_box=perturb)
        return Cell(axis, name, attack.eps, measure, asdict(attack), attack.norm)

    def autoattack(self, norm: Literal["linf", "l2"], eps: float, which: Sequence[str] | None) -> Cell:
        """AutoAttack, on each network for itself."""

        def measure(networks: Networks) -> Mapping[str, Measured]:
            doubts: dict[Network, list[str]] = {network: [] for network in networks.all.values()}

            def perturb(batch: Batch, network: Network) -> Tensor:
                found, flags = attacks.autoattack(
                    network, batch.inputs, batch.target, norm=norm, eps=eps, seed=self.seed, attacks=which
                )
                doubts[network] += [flag for flag in flags if flag not in doubts[network]]
                return found

            found = _measured(networks, grid=self, batches=self.batches, white_box=perturb)
            return {key: replace(one, notes=doubts[networks.all[key]]) for key, one in found.items()}

        settings = {"norm": norm, "attacks": "standard" if which is None else list(which)}
        return Cell("attacks", f"autoattack_{norm}", eps, measure, settings, norm)

    def shift(self, name: str, batches: Batches) -> Cell:
        """Another data set with the same classes."""
        return Cell("shift", name, 1, partial(_measured, grid=self, batches=batches), {})

    def foreign(self, name: str, batches: Batches) -> Cell:
        """Another data set, with none of the classes: what the scores of `kdexp.robustness.ood` tell."""

        def measure(networks: Networks) -> Mapping[str, Measured]:
            return {key: self._detection(network, batches) for key, network in networks.all.items()}

        return Cell("ood", name, 1, measure, {})

    def calibration(self, val: Batches, bins: int) -> Cell:
        """Calibration on the test set: as it is, and with the temperature that fits val best."""

        def measure(networks: Networks) -> Mapping[str, Measured]:
            return {key: self._calibration(network, val, bins) for key, network in networks.all.items()}

        return Cell("calibration", "clean", 0, measure, {"bins": bins})

    def features(self, name: str, fit: Batches, test: Batches, neighbours: int, **settings: Any) -> Cell:
        """What the representations are good for on a data set; on the grid's own, how like the teacher's they are."""

        def measure(networks: Networks) -> Mapping[str, Measured]:
            found = {key: self._represented(network, fit, test) for key, network in networks.represent.items()}
            return {
                key: self._worth(
                    found.get(key), found.get(networks.teachers.get(key, "")), neighbours, is_own=test is self.batches
                )
                for key in networks.all
            }

        return Cell("features", name, 0, measure, {"neighbours": neighbours, **settings})

    def _shared(self, axis: str, name: str, dose: float, family: str, perturb: Perturb, **settings: Any) -> Cell:
        measure = partial(_measured, grid=self, batches=self.batches, perturb=perturb)
        return Cell(axis, name, dose, measure, settings, family)

    def _detection(self, network: Network, foreign: Batches) -> Measured:
        own, other = (ood.scores(_logits(network, batches)[0], self.task) for batches in (self.batches, foreign))
        found = {f"{score}_{k}": v for score in own for k, v in ood.detection(own[score], other[score]).items()}
        samples = {
            f"{score}_{side}": values[score] for side, values in (("own", own), ("other", other)) for score in own
        }
        return Measured(found, samples)

    def _calibration(self, network: Network, val: Batches, bins: int) -> Measured:
        logits, target = _logits(network, self.batches)
        temperature = calibration.best_temperature(*_logits(network, val), self.task)
        values: dict[str, float] = {"temperature": temperature}
        samples: dict[str, Tensor] = {}
        hits = calibration.predictions(logits, target, self.task)[1]  # a temperature changes no decision
        samples["hit"] = hits.clone()  # in sigmoid tasks it is the target itself
        for suffix, scaled in (("", logits), ("_scaled", logits / temperature)):
            confidence, _ = calibration.predictions(scaled, target, self.task)
            equal = calibration.reliability(confidence, hits, bins)
            nll = calibration.log_loss(scaled, target, self.task).view(len(scaled), -1).mean(1)
            squared = calibration.brier(scaled, target, self.task)
            found = {
                "ece": equal.error(),
                "largest_gap": equal.largest(),
                "ace": calibration.reliability(confidence, hits, bins, adaptive=True).error(),
                "nll": float(nll.mean()),
                "brier": float(squared.mean()),
            }
            values |= {f"{name}{suffix}": value for name, value in found.items()}
            per_sample = {"confidence": confidence, "nll": nll, "brier": squared}
            samples |= {f"{name}{suffix}": value for name, value in per_sample.items()}
        return Measured(values, samples)

    def _represented(self, network: Network, fit: Batches, test: Batches) -> "_Represented":
        (known, labels), (asked, answers) = _logits(network, fit), _logits(network, test)
        return known.flatten(1).float().numpy(), labels.numpy(), asked.flatten(1).float().numpy(), answers.numpy()

    def _worth(
        self, own: "_Represented | None", teacher: "_Represented | None", neighbours: int, *, is_own: bool
    ) -> Measured:
        if own is None:
            return Measured({}, notes=["it has no representations of its own to read"])
        right = {"probe": features.linear_probe(*own), "knn": features.nearest(*own, neighbours=neighbours)}
        values = {name: float(each.mean()) for name, each in right.items()}
        if teacher is not None and is_own:
            values["cka_to_teacher"] = features.cka(own[2], teacher[2])
        return Measured(values, {name: torch.from_numpy(each) for name, each in right.items()})


_Represented = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of the samples to train a probe on, and of those to ask it about: representations and classes."""


def _name(operator: Any) -> str:
    function = getattr(operator, "func", operator)  # the yaml makes a partial of it
    return f"{function.__module__}.{function.__qualname__}"


def _channels_last(inputs: Tensor) -> Tensor:
    """Coloured images in the memory format in which a CPU answers faster: max pooling above all; other inputs as is.

    Attacks have them as they are: thin networks take longer over gradients in this format.
    """
    if inputs.dim() != 4 or inputs.device.type != "cpu":
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _logits(network: Network, batches: Batches) -> tuple[Tensor, Tensor]:
    """Of all samples, and their targets; on the CPU."""
    found = [(network(_channels_last(batch.inputs)).cpu(), batch.target.cpu()) for batch in batches]
    logits, target = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, target


@torch.no_grad()
def _measured(
    networks: Networks,
    *,
    grid: Grid,
    batches: Batches,
    perturb: Perturb | None = None,
    white_box: WhiteBox | None = None,
) -> Mapping[str, Measured]:
    """The metrics of `kdexp.metrics.Metrics` of every network.

    Args:
        networks: see `Networks`.
        grid: for the task and the like.
        batches: the test data.
        perturb: what is done to them, once for all networks.
        white_box: what is done to them for each network.
    """
    metrics = {
        name: Metrics(
            grid.task, grid.outputs, samples=grid.samples, fidelity=name in networks.teachers, sync_on_compute=False
        )
        for name in networks.all
    }
    hits: dict[str, list[Tensor]] = {name: [] for name in networks.all}
    for batch in batches:
        shared = _channels_last(perturb(batch) if perturb is not None else batch.inputs)
        answers: dict[str, Tensor] = {}
        for name, network in networks.all.items():
            inputs = white_box(batch, network) if white_box is not None else shared
            logits = answers[name] = network(inputs)
            teacher = networks.teachers.get(name)
            if teacher is None:
                of_teacher = None
            else:
                of_teacher = answers[teacher] if white_box is None else networks.all[teacher](inputs)
            metrics[name].to(logits.device).update(logits, batch.target, teacher_logits=of_teacher)
            hits[name].append(right(logits, batch.target, grid.task).cpu())
    return {name: Measured(metrics[name].compute(), {"right": torch.cat(hits[name])}) for name in networks.all}
