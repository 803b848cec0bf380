"""The grid: each perturbation of the test data at each level is a condition, in which all networks are measured."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from kdexp.config.require import Values
from kdexp.contracts import Batch, Kind, Split, Task
from kdexp.robustness import renamed
from kdexp.robustness.attacks import Network

Batches = Iterable[Batch]
"""In the order of the split, on the networks' device; inputs as `kdexp.robustness.attacks` has them."""

Perturb = Callable[[Batch], Tensor | Batch]
"""The inputs of a batch, perturbed; the whole batch where its masks are moved with them."""

WhiteBox = Callable[[Batch, Network], Tensor]
"""The inputs of a batch, perturbed for the network that will get them."""


@dataclass(frozen=True)
class Networks:
    """The networks that are measured side by side.

    Attributes:
        all: name -> network, in eval mode: inputs (N, ...) to logits (N, C, ...).
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
        samples: name -> (n, ...), for each sample: its record (see `kdexp.contracts.Task.record`) and others.
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
        split: the same as they are stored.
        positions: (n,) int64, their places in the split, ascending.
        is_whole: whether they are the whole split.
    """

    batches: Batches
    split: Split
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
        part: the test set.
        task: what logits and targets mean, and what is measured.
        shape: of a sample.
        seed: of all random numbers.
    """

    part: Part
    task: Task
    shape: Sequence[int]
    seed: int

    @property
    def batches(self) -> Batches:
        """The test set."""
        return self.part.batches

    @property
    def kind(self) -> Kind:
        """What one row of logits means."""
        return self.task.kind

    @property
    def samples(self) -> int:
        """How many are in the test set."""
        return len(self.part.positions)

    @property
    def is_image(self) -> bool:
        """Whether samples are images (C, H, W)."""
        return len(self.shape) == 3

    @property
    def is_text(self) -> bool:
        """Whether samples are texts (L,)."""
        return "texts" in self.task.supports

    @property
    def is_dense(self) -> bool:
        """Whether every pixel of a sample has a row of logits, and targets are masks."""
        return len(self.task.logits_shape(self.shape)) > 1

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
        """The metrics of the task, and the records of the samples, of every network.

        Args:
            networks: see `Networks`.
            batches: the data; None: the test set.
            perturb: what is done to them, once for all networks.
            white_box: what is done to them for each network.
        """
        task, split = self.task, self.part.split
        metrics = {
            name: task.metrics(split=split, fidelity=name in networks.teachers, alone=True) for name in networks.all
        }
        records: dict[str, list[Tensor]] = {name: [] for name in networks.all}
        for plain in self.batches if batches is None else batches:
            batch = _perturbed(plain, perturb) if perturb is not None else plain
            for name, logits, of_teacher in _outputs(networks, batch, white_box):
                metrics[name].to(logits.device).update(logits, batch.target, teacher_logits=of_teacher)
                records[name].append(task.records(logits, batch.target).cpu())
        return {
            name: Measured(metrics[name].compute(), {task.record: torch.cat(records[name])}) for name in networks.all
        }


def _perturbed(batch: Batch, perturb: Perturb) -> Batch:
    found = perturb(batch)
    return found if isinstance(found, Batch) else replace(batch, inputs=found)


def _outputs(
    networks: Networks, batch: Batch, white_box: WhiteBox | None
) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Of each network its name, its logits and its teacher's on the same inputs."""
    shared = _channels_last(batch.inputs)
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
def outputs(network: Network, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (or what else the network gives) and targets of each batch, on the CPU."""
    for batch in batches:
        yield network(_channels_last(batch.inputs)).cpu(), batch.target.cpu()


def logits_of(network: Network, batches: Batches) -> tuple[Tensor, Tensor]:
    """The same of all samples at once, which the pixels of masks are too many for."""
    logits, target = (torch.cat(parts) for parts in zip(*outputs(network, batches), strict=True))
    return logits, target
