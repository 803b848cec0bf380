"""What is measured of the data, the networks and the losses without a training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdexp.contracts import UNLABELED, Batch, Outputs
from kdexp.data.data_module import DataModule
from kdexp.data.splits import stratified_sample
from kdexp.models.complexity import macs, parameters
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller


@dataclass
class Moments:
    """Mean and standard deviation of inputs, summed up batch by batch.

    Attributes:
        per_channel: for each channel of images (or feature of anything else), or one for all.
    """

    per_channel: bool
    _sums: list[Tensor] = field(default_factory=list)

    def add(self, inputs: Tensor) -> None:
        """Add (N, C, ...) images or (N, ..., F) features."""
        rows = inputs.detach().double().movedim(1, -1) if inputs.ndim == 4 else inputs.detach().double()
        rows = rows.reshape(-1, rows.shape[-1] if self.per_channel else 1)
        self._sums.append(torch.stack([torch.ones_like(rows).sum(0), rows.sum(0), rows.square().sum(0)]).cpu())

    def compute(self) -> tuple[Tensor, Tensor]:
        """(channels,) means and standard deviations."""
        count, total, squares = torch.stack(self._sums).sum(0)
        mean = total / count
        return mean, (squares / count - mean.square()).clamp(min=0).sqrt()


def input_moments(
    data: DataModule, teacher: Teacher | None, device: torch.device, *, per_channel: bool, samples: int = 1024
) -> tuple[Moments, list[Moments]]:
    """Moments of training inputs without augmentation, for the student and each of the teacher's networks.

    Args:
        data: the student's.
        teacher: it converts the inputs to each network's own mean and std; that is what is measured.
        device: where the inputs are.
        per_channel: see `Moments`.
        samples: at most so many are used, drawn at random and stratified by class.
    """
    student = Moments(per_channel)
    teachers = [] if teacher is None else [Moments(per_channel) for _ in teacher.networks]
    positions = stratified_sample(data.splits.train.target, samples, seed=0)
    for batch in data.eval_batches("train", device, positions=positions):
        student.add(batch.inputs)
        if teacher is not None:
            for moments, inputs in zip(teachers, teacher.network_inputs(batch.inputs), strict=True):
                moments.add(inputs)
    return student, teachers


def val_inputs(data: DataModule, samples: int = 64) -> Tensor:
    """(samples, ...) normalized validation inputs on the CPU, drawn at random and stratified by class."""
    positions = stratified_sample(data.splits.val.target, samples, seed=0)
    return torch.cat([batch.inputs for batch in data.eval_batches("val", "cpu", positions=positions)])


@dataclass(frozen=True)
class NetworkSize:
    """What one network costs, or several together.

    Attributes:
        parameters: number of them.
        macs: multiply-accumulates a sample.
    """

    parameters: int
    macs: int


def network_size(networks: Sequence[nn.Module], input_shape: Sequence[int]) -> NetworkSize:
    """Parameters and MACs of these networks together, for inputs of this shape (without the batch)."""
    cost = sum(macs(network, input_shape) for network in networks)
    return NetworkSize(sum(map(parameters, networks)), cost)


@dataclass(frozen=True)
class TeacherState:
    """The teacher after the student's training.

    Attributes:
        training_modules: number of its modules that are in training mode.
        trainable_parameters: number of its parameter tensors that take a gradient.
        before: (N, C) its logits of some inputs before the training.
        after: its logits of the same inputs in two passes after the training.
    """

    training_modules: int
    trainable_parameters: int
    before: Tensor
    after: tuple[Tensor, Tensor]


def teacher_state(teacher: Teacher, before: Tensor, inputs: Tensor) -> TeacherState:
    """The state of the teacher after the training.

    Args:
        teacher: after the training.
        before: (N, C) its logits of the inputs before the training.
        inputs: normalized.
    """
    return TeacherState(
        sum(module.training for network in teacher.networks for module in network.modules()),
        sum(parameter.requires_grad for network in teacher.networks for parameter in network.parameters()),
        before,
        (teacher(inputs).logits, teacher(inputs).logits),
    )


@dataclass
class BatchDependence:
    """Names of the losses that compare the samples of a batch with each other.

    Attributes:
        own: those that kdexp has, which gather the batch of all ranks.
        foreign: those that a user wrote.
        unknown: of which it cannot be told: they draw random numbers or keep a state.
    """

    own: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def batch_dependence(distiller: Distiller, batch: Batch) -> BatchDependence | None:
    """Which losses compare samples; None for a batch with fewer than 4 labeled samples. Puts losses in eval mode."""
    student, teacher, batch = _labeled_pair(distiller, batch)
    if len(batch.index) < 4:
        return None
    found = BatchDependence()
    losses = {} if distiller.soft_loss is None else {"soft": distiller.soft_loss}
    for name, loss in (losses | dict(distiller.feature_losses.named_children())).items():
        loss.eval()  # an adapter's batch norm compares samples too, and under DDP on purpose
        term = (lambda s, t, b, loss=loss: loss(s.logits, t.logits, b.target)) if name == "soft" else loss
        compares = compares_samples(term, student, teacher, batch)
        if compares is None:
            found.unknown.append(name)
        elif compares:
            (found.own if type(loss).__module__.startswith("kdexp.") else found.foreign).append(name)
    return found


def _labeled_pair(distiller: Distiller, batch: Batch) -> tuple[Outputs, Outputs, Batch]:
    """Up to 32 labeled samples of a batch, an even number, and both networks' outputs for them."""
    rows = batch.target.reshape(len(batch.target), -1)
    # A mixed target's row sums to the fraction of it that is labeled.
    is_mixed = rows.is_floating_point() and distiller.task.kind == "multiclass"
    labeled = rows.sum(1) > 0.999 if is_mixed else (rows != UNLABELED).any(1)
    kept = labeled.nonzero().squeeze(1)
    kept = kept[: min(len(kept) // 2 * 2, 32)]
    batch = Batch(batch.inputs[kept], batch.target[kept], batch.index[kept])
    distiller.eval()
    with torch.no_grad():
        student = distiller.student_outputs(batch.inputs)
        teacher = distiller.teacher_on_train(batch)
    # Peers, or a loss that needs no teacher:
    return student, Outputs(torch.randn_like(student.logits)) if teacher is None else teacher, batch


def compares_samples(
    loss: Callable[[Outputs, Outputs, Batch], Tensor], student: Outputs, teacher: Outputs, batch: Batch
) -> bool | None:
    """Whether a loss compares the samples of a batch with each other, found by what it does.

    A loss of single samples is, for a batch, the mean of what it is for each pair of them. (Halves would tell less:
    statistics of half a batch are much like those of the whole.)

    Args:
        loss: the term, which takes what a `kdexp.contracts.FeatureLoss` takes.
        student: of a batch of an even number of labeled samples, with features.
        teacher: likewise.
        batch: that batch.

    Returns:
        None when the same batch has two values: the loss draws random numbers or keeps a state.
    """

    def of(rows: slice) -> float:
        cut = Batch(batch.inputs[rows], batch.target[rows], batch.index[rows])
        sides = [
            Outputs(side.logits[rows], {path: feature[rows] for path, feature in side.features.items()})
            for side in (student, teacher)
        ]
        with torch.no_grad():
            return float(loss(sides[0], sides[1], cut))

    whole = of(slice(None))
    if not math.isclose(whole, of(slice(None)), rel_tol=1e-5, abs_tol=1e-7):
        return None
    pairs = [of(slice(start, start + 2)) for start in range(0, len(batch.index), 2)]
    return not math.isclose(whole, math.fsum(pairs) / len(pairs), rel_tol=1e-3, abs_tol=1e-6)
