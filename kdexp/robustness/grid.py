"""The grid: each perturbation of the test data at each level is a condition, in which all networks are measured."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from kdexp.config.require import Values
from kdexp.contracts import Batch, Kind
from kdexp.metrics.classification import Metrics
from kdexp.metrics.rows import right
from kdexp.robustness import renamed
from kdexp.robustness.attacks import Network

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
    """What was found of one network in one condition.

    Attributes:
        values: by name; what is not defined is not there.
        samples: name -> (n, ...), for each sample: ``right``, the fraction of its labels that is right, and others.
        notes: what a reader must know of them.
    """

    values: Mapping[str, float]
    samples: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """Samples of a split: all of them, or a random part that is stratified by class.

    Attributes:
        batches: the samples.
        positions: (n,) int64, their places in the split, ascending.
        is_whole: whether they are the whole split.
    """

    batches: Batches
    positions: Tensor
    is_whole: bool

    @property
    def digests(self) -> list[str]:
        """One that tells this part from others; none for the whole."""
        return [] if self.is_whole else [hashlib.sha256(self.positions.numpy().tobytes()).hexdigest()]


@dataclass(frozen=True)
class Condition:
    """One perturbation of the test data at one level.

    Attributes:
        axis: the part of the report that it belongs to.
        name: of the perturbation.
        level: severity, amount of noise or eps; 0 for none.
        measure: finds the values of every network.
        settings: all that these depend on besides networks and data; plain values.
        family: of the perturbation, for means.
        positions: (n,) int64, which samples of the test set it is measured on; None: all, or those of another set.
    """

    axis: str
    name: str
    level: float
    measure: Callable[[Networks], Mapping[str, Measured]]
    settings: Values
    family: str = ""
    positions: Tensor | None = None

    @property
    def identity(self) -> list[object]:
        """What tells it from others, under the names of the first kdexp: a part of the key of what is measured."""
        axis, name, settings = renamed.before(self.axis, self.name, self.settings)
        return [axis, name, self.level, settings]

    def on(self, *parts: Part) -> "Condition":
        """The condition as one of these samples, which its settings tell where they are not a whole split."""
        digests = [digest for part in parts for digest in part.digests]
        chosen = [*self.settings.get("chosen", ()), *digests]
        return replace(self, settings={**self.settings, "chosen": chosen}) if chosen else self


Found = Sequence[tuple[Condition, Mapping[str, Measured]]]
"""Conditions, and what was measured under them by role, each in the same order of roles."""


@dataclass(frozen=True)
class Grid:
    """Makes the conditions of one test set.

    Attributes:
        batches: the test set.
        kind: what logits and targets mean.
        outputs: C, the number of logits.
        shape: of a sample.
        samples: in the test set.
        seed: of all random numbers.
    """

    batches: Batches
    kind: Kind
    outputs: int
    shape: Sequence[int]
    samples: int
    seed: int

    @property
    def is_image(self) -> bool:
        """Whether samples are images (C, H, W)."""
        return len(self.shape) == 3

    def clean(self) -> Condition:
        """The test set as it is."""
        return self.perturbed("clean", "clean", 0, "", lambda batch: batch.inputs)

    def perturbed(
        self, axis: str, name: str, level: float, family: str, perturb: Perturb, **settings: object
    ) -> Condition:
        """The test set, perturbed once for all networks; arguments as of `Condition`."""
        return Condition(axis, name, level, partial(self.measure, perturb=perturb), settings, family)

    def other(self, axis: str, name: str, batches: Batches) -> Condition:
        """Another test set of the same classes."""
        return Condition(axis, name, 1, partial(self.measure, batches=batches), {})

    @torch.no_grad()
    def measure(
        self,
        networks: Networks,
        *,
        batches: Batches | None = None,
        perturb: Perturb | None = None,
        white_box: WhiteBox | None = None,
    ) -> dict[str, Measured]:
        """The metrics of `kdexp.metrics.classification.Metrics` of every network.

        Args:
            networks: see `Networks`.
            batches: the data; None: the test set.
            perturb: what is done to them, once for all networks.
            white_box: what is done to them for each network.
        """
        metrics = {
            name: Metrics(
                self.kind, self.outputs, samples=self.samples, fidelity=name in networks.teachers, sync_on_compute=False
            )
            for name in networks.all
        }
        hits: dict[str, list[Tensor]] = {name: [] for name in networks.all}
        for batch in self.batches if batches is None else batches:
            for name, logits, of_teacher in _outputs(networks, batch, perturb, white_box):
                metrics[name].to(logits.device).update(logits, batch.target, teacher_logits=of_teacher)
                hits[name].append(right(logits, batch.target, self.kind).cpu())
        return {name: Measured(metrics[name].compute(), {"right": torch.cat(hits[name])}) for name in networks.all}


def _outputs(
    networks: Networks, batch: Batch, perturb: Perturb | None, white_box: WhiteBox | None
) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Of each network its name, its logits and its teacher's on the same inputs."""
    shared = _channels_last(perturb(batch) if perturb is not None else batch.inputs)
    found: dict[str, Tensor] = {}
    for name, network in networks.all.items():
        inputs = white_box(batch, network) if white_box is not None else shared
        logits = found[name] = network(inputs)
        of_teacher = None
        if (teacher := networks.teachers.get(name)) is not None:
            of_teacher = found[teacher] if white_box is None else networks.all[teacher](inputs)
        yield name, logits, of_teacher


def _channels_last(inputs: Tensor) -> Tensor:
    """Images in the memory format in which a CPU is faster, at max pooling above all; other inputs as they are.

    Attacks do without: thin networks take longer over gradients in this format.
    """
    if inputs.dim() != 4 or inputs.device.type != "cpu":
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def logits_of(network: Network, batches: Batches) -> tuple[Tensor, Tensor]:
    """Logits (or what else the network gives) of all samples, and their targets; on the CPU."""
    found = [(network(_channels_last(batch.inputs)).cpu(), batch.target.cpu()) for batch in batches]
    logits, target = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, target
