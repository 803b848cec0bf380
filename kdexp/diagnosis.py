"""What ``kdexp-doctor`` looks at: the data, the teacher, each term of the loss in a few real steps, and the cost."""

import logging
import math
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from kdexp import assemble
from kdexp.config import is_control
from kdexp.contracts import UNLABELED, Batch, Outputs, Splits, Task
from kdexp.data.splits import samples_per_class, stratified_sample
from kdexp.distiller import Distiller
from kdexp.models.cost import macs, parameters
from kdexp.teacher import Teacher

Verdict = Literal["ok", "note", "warning", "error"]

EXAMINED = 5
"""So many training batches are looked at; later steps are only timed."""

_TIMED_STEPS, _TIMED_SECONDS = 20, 5.0
_INPUTS = 1024  # samples that the statistics of the inputs are of
_VAL_BATCHES = 4


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        check: what was looked at.
        found: what there is.
        verdict: ok; note: worth knowing; warning: the run works but likely not as meant; error: it cannot work.
        advice: what to do; with every warning and error.
    """

    check: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""


def examine(config: Any) -> Iterator[Finding]:
    """Assemble an experiment, take a few steps of it and judge what is seen; nothing of the student is kept.

    A teacher that is to be trained and is not in the store yet is trained now, as the run would do, and kept there.

    Args:
        config: a checked configuration.

    Yields:
        Findings as they come.

    Raises:
        ValueError: a setting that cannot be assembled.
        FileNotFoundError: data or weights are not where the settings say.
    """
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    heard: list[str] = []
    with _hearing(heard):
        assemble.rehearse(config)
    early = len(heard)
    yield from map(_warned, heard)
    data = assemble.Data(config)
    yield from class_counts(data.student.splits, config.dataset.task, config.dataset.num_classes)
    learner = assemble.student(config)
    yield from batches_and_ranks(config, learner)
    frozen = assemble.teacher(config, data)
    learner = assemble.student(config, frozen)
    yield from _inputs(config, frozen, data)
    if frozen is not None:
        yield teacher_accuracy(*assemble.teacher_on_val(config, frozen, data))
    yield _sizes(config, learner, frozen)
    with _hearing(heard):
        module = assemble.distiller(config, learner, frozen, data)
    some = stratified_sample(data.student.splits.val.target, 64, seed=0)
    inputs = [batch.inputs for batch in data.student.eval_batches("val", "cpu", positions=some)]
    probe = Probe(heard, torch.cat(inputs))
    stopped = take_steps(module, data, config, probe)
    if not probe.terms:
        yield Finding("first step", stopped, "error", "kdexp-train would end with this")
        return
    module.to(probe.batch.inputs.device)  # the Trainer takes it to the CPU when it ends
    yield from probe.teacher_findings(frozen)
    yield from _logits(config, module, probe)
    if "soft" in probe.terms:
        yield alpha_convention(config)
    yield from term_findings(probe.terms, degenerate=bool(heard))
    yield from map(_warned, heard[early:])
    if len(probe.terms) > 1:
        yield _comparing(config, module, probe)
    yield _finite(probe, module, stopped)
    in_stages = any(loss.get("alone") for loss in config.feature_loss.values())
    yield unused_parameters(probe.unused, config.trainer, in_stages=in_stages)
    if not stopped:
        yield from _cost(config, module, data, probe)


@contextmanager
def _hearing(heard: list[str]) -> Iterator[None]:
    """Note what losses and networks warn of, instead of printing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            own = [w for w in caught if issubclass(w.category, UserWarning) and not _is_of_torch(w.filename)]
            heard += [text for text in dict.fromkeys(str(w.message) for w in own) if text not in heard]


def _is_of_torch(file: str) -> bool:
    return Path(file).is_relative_to(Path(torch.__file__).parent)


# Data


def class_counts(splits: Splits, task: Task, num_classes: int) -> list[Finding]:
    """How many samples each class has in each split; a class without any, or with far fewer than another, is named."""
    findings = []
    for name in ("train", "val", "test"):
        split = getattr(splits, name)
        counts = samples_per_class(split.target, task, num_classes)
        hidden = int((split.target.reshape(len(split), -1) == UNLABELED).all(1).sum())
        few, many = int(counts.min()), int(counts.max())
        found = f"{len(split)} samples, {few} to {many} a class"
        if hidden:
            found += f", {hidden} without a label"
        missing = [str(place) for place, count in enumerate(counts.tolist()) if count == 0]
        verdict: Verdict = "ok"
        advice = ""
        if missing and hidden < len(split):
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            found += f"; {len(missing)} of {num_classes} classes missing: {shown}"
            verdict = "warning"
            advice = (
                "the student cannot learn them: check dataset.num_classes, or raise dataset.train_fraction"
                if name == "train"
                else "they have no part in the macro metrics: a larger split would have them"
            )
        elif few and many > 10 * few:
            verdict, advice = "note", "imbalanced: look at f1 and auc besides acc, or at dataset.resample=balanced"
        findings.append(Finding(f"classes in {name}", found, verdict, advice))
    return findings


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


def normalisation(whose: str, moments: Moments, advice: str) -> Finding:
    """Whether inputs have mean 0 and standard deviation 1, more or less (1 off, a factor of 4)."""
    mean, std = moments.compute()
    found = f"mean {_span(mean)}, std {_span(std)}"
    if len(mean) > 1:
        found += f" ({len(mean)} channels)"
    fits = bool(((mean.abs() <= 1) & (std >= 0.25) & (std <= 4)).all())
    return Finding(f"inputs of the {whose}", found) if fits else Finding(
        f"inputs of the {whose}", found, "warning", advice
    )  # fmt: skip


def _span(values: Tensor) -> str:
    low, high = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
    return low if low == high else f"{low} to {high}"


def _inputs(config: Any, frozen: Teacher | None, data: assemble.Data) -> list[Finding]:
    """`normalisation` of training inputs without augmentation, for the student and each of the teacher's networks."""
    place = assemble.device(config.trainer.accelerator)
    per_channel = len(config.dataset.mean) > 1
    student = Moments(per_channel)
    teachers = [] if frozen is None else [(network, Moments(per_channel)) for network in frozen.to(place).networks]
    # After the conversion to a network's own mean and std, which the teacher does.
    hooks = [
        network.register_forward_pre_hook(lambda _, given, moments=moments: moments.add(given[0]))
        for network, moments in teachers
    ]
    some = stratified_sample(data.student.splits.train.target, _INPUTS, seed=0)
    for batch in data.student.eval_batches("train", place, positions=some):
        student.add(batch.inputs)
        if frozen is not None:
            frozen(batch.inputs)
    for hook in hooks:
        hook.remove()
    findings = [normalisation("student", student, "dataset.mean and dataset.std must be those of the training inputs")]
    for number, (_, moments) in enumerate(teachers, start=1):
        whose = "teacher" if len(teachers) == 1 else f"teacher {number}"
        findings.append(normalisation(whose, moments, "its mean and std must be those that it was trained with"))
    return findings


# Batches and ranks


def ranks(trainer: Any) -> int:
    """Processes that the run would have."""
    devices = trainer.devices
    if devices == "auto":
        count = 1 if trainer.accelerator == "cpu" else max(torch.accelerator.device_count(), 1)
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return int(count * trainer.num_nodes)


def batches_and_ranks(config: Any, learner: nn.Module) -> list[Finding]:
    """How a batch is shared out among the ranks, and what that means for batch norm."""
    size, world = config.dataset.batch_size, ranks(config.trainer)
    if world == 1:
        return [Finding("batch", f"{size} samples, 1 rank")]
    found = f"{size} samples of all {world} ranks, {size / world:.3g} each"
    if config.dataset.drop_last and size % world:
        advice = f"make dataset.batch_size divisible by {world}"
        return [Finding("batch", f"dataset.batch_size={size} on {world} ranks", "error", advice)]
    findings = [Finding("batch", found, "note", "dataset.batch_size is the batch of all ranks; the rate goes with it")]
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in learner.modules())
    if has_batch_norm and not config.trainer.sync_batchnorm:
        advice = "trainer.sync_batchnorm=true takes the statistics over all ranks"
        findings.append(Finding("batch norm", f"statistics of {size / world:.3g} samples", "note", advice))
    return findings


# Teacher


def teacher_accuracy(accuracy: float, counts: Tensor, samples: int, task: Task, auc: float | None = None) -> Finding:
    """The teacher's accuracy against what needs no input: see `kdexp.assemble.near_chance`."""
    found, advice = assemble.near_chance(accuracy, counts, samples, task, auc)
    return Finding("teacher on val", found, "warning" if advice else "ok", advice)


def frozen_and_steady(frozen: Teacher, before: Tensor, inputs: Tensor) -> list[Finding]:
    """Whether a teacher is in eval mode, takes no gradient, and answers as it did before the student's training.

    Args:
        frozen: the teacher, after the training.
        before: its logits for the inputs before the training.
        inputs: normalised.
    """
    modules = [module for network in frozen.networks for module in network.modules()]
    wrong = [f"{sum(m.training for m in modules)} modules in training mode"] if any(m.training for m in modules) else []
    trainable = sum(p.requires_grad for network in frozen.networks for p in network.parameters())
    wrong += [f"{trainable} parameters that take a gradient"] if trainable else []
    findings = [
        Finding("teacher frozen", ", ".join(wrong), "error", "call eval() and requires_grad_(False) on its networks")
        if wrong
        else Finding("teacher frozen", "eval mode, no gradient")
    ]
    first, second = frozen(inputs).logits, frozen(inputs).logits
    if not _same(first, second):
        advice = "it draws random numbers in eval mode, or keeps a state: look for functional dropout"
        findings.append(Finding("teacher steady", "two passes over a batch differ", "error", advice))
    elif not _same(before, first):
        advice = "something trains it or moves its batch norm's statistics"
        findings.append(Finding("teacher steady", "it changed while the student was trained", "error", advice))
    else:
        findings.append(Finding("teacher steady", "two passes agree, and with one before the training"))
    return findings


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)  # a GPU may add up in another order


def _sizes(config: Any, learner: nn.Module, frozen: Teacher | None) -> Finding:
    shape = list(config.dataset.input_shape)
    cost, size = macs(learner, shape), parameters(learner)
    found = f"student {_short(size)} parameters, {_short(cost)} MACs"
    if frozen is None:
        scheme = config.scheme.get("name")
        why = "the control" if is_control(config) else f"scheme={scheme}" if scheme else "the loss needs none"
        return Finding("size", f"{found}; no teacher: {why}")
    teacher_size = sum(map(parameters, frozen.networks))
    teacher_cost = sum(macs(network, shape) for network in frozen.networks)
    found += f"; teacher {_short(teacher_size)}, {_short(teacher_cost)} ({teacher_size / max(size, 1):.1f} and "
    found += f"{teacher_cost / max(cost, 1):.1f} times)"
    if teacher_size < size:
        return Finding("size", found, "note", "the student is the larger network: is it meant to be?")
    return Finding("size", found)


def softness(logits: Tensor, temperature: float, task: Task) -> Finding:
    """The share that the teacher gives its first choice at the temperature; near 1 it says what a label says.

    Args:
        logits: (N, C, ...), the teacher's.
        temperature: T.
        task: what the logits mean.
    """
    scaled = logits.float() / temperature
    top = scaled.softmax(1).amax(1) if task == "multiclass" else torch.maximum(scaled.sigmoid(), (-scaled).sigmoid())
    share, least = float(top.mean()), 1 / (logits.shape[1] if task == "multiclass" else 2)
    found = f"{share:.3f} of the probability on the first choice at T={temperature:g}"
    if share > 0.99:
        advice = "the soft term says little more than the labels: try a higher temperature"
        return Finding("teacher's answers", found, "note", advice)
    if share < least + 0.02 * (1 - least):
        advice = "nearly uniform: try a lower temperature"
        return Finding("teacher's answers", found, "note", advice)
    return Finding("teacher's answers", found)


def _logits(config: Any, module: Distiller, probe: "Probe") -> list[Finding]:
    found = f"student {_scale(probe.student_logits):.3g}"
    if not probe.teacher_logits:
        return [Finding("scale of the logits", found)]
    answers = torch.cat(probe.teacher_logits)
    findings = [Finding("scale of the logits", f"{found}, teacher {_scale(probe.teacher_logits):.3g}")]
    if module.soft_loss is not None:
        findings.append(softness(answers, module.temperature, config.dataset.task))
    return findings


def _scale(logits: Sequence[Tensor]) -> float:
    """Root mean square of the logits; over classes around their mean, which a softmax does not see."""
    together = torch.cat(list(logits)).double()
    if together.shape[1] > 1:
        together = together - together.mean(1, keepdim=True)
    return float(together.square().mean().sqrt())


# Terms


@dataclass
class Measured:
    """A term of the loss over the examined batches.

    Attributes:
        weight: its factor in the first epoch.
        values: its value in each batch, before the factor.
        norms: of the gradient of the weighted term in the student's parameters; nothing without a weight.
        cosines: of that gradient with the first weighted term's (the hard one's, as a rule); nothing for that itself.
    """

    weight: float = 0.0
    values: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)


def term_findings(terms: Mapping[str, Measured], *, degenerate: bool) -> list[Finding]:
    """A row for each term, and one for their balance.

    Args:
        terms: name -> what was measured; of the terms that act on the student.
        degenerate: a loss has said itself that a part of it has no gradient.
    """
    findings = []
    reference = next((name for name, term in terms.items() if any(term.norms) and not term.cosines), "")
    for name, term in terms.items():
        found = f"value {_mean(term.values):.4g}, weight {term.weight:.4g}"
        check = f"{name} term"
        if not all(map(math.isfinite, [*term.values, *term.norms])):
            if term.norms:
                found += f", gradient norm {_mean(term.norms):.3g}"
            advice = "look for log(0), 0/0 or an overflow in this term; trainer.precision=32-true rules out the last"
            findings.append(Finding(check, found, "error", advice))
            continue
        if term.weight == 0:
            findings.append(Finding(check, f"{found}: no part in the first epoch"))
            continue
        found += f", gradient norm {_mean(term.norms):.3g}"
        if max(term.norms) < 1e-12:
            verdict: Verdict = "warning" if degenerate else "error"
            findings.append(Finding(check, found, verdict, "it cannot teach the student: leave it out or replace it"))
            continue
        if term.cosines:
            found += f", cosine {_mean(term.cosines):+.2f} to {reference}"
        findings.append(Finding(check, found))
    norms = {name: _mean(term.norms) for name, term in terms.items() if term.norms and 0 < _mean(term.norms) < math.inf}
    if len(norms) > 1:
        strong, weak = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
        found = f"{strong} pulls {norms[strong] / norms[weak]:.3g} times as hard as {weak}"
        if norms[strong] > 100 * norms[weak]:
            advice = f"{weak} hardly counts: change its weight, or alpha"
            findings.append(Finding("balance of the terms", found, "note", advice))
        else:
            findings.append(Finding("balance of the terms", found))
    return findings


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan


def _warned(message: str) -> Finding:
    two = "2 classes" in message
    advice = "loss=kd has its whole signal with two classes" if two else "see the docstring of what warns"
    return Finding("a loss warns", message, "warning", advice)


def alpha_convention(config: Any) -> Finding:
    """Point at a large alpha: it weighs the hard term here, and the soft one in DeiT, KD-Lib and others.

    Args:
        config: with alpha, alpha_schedule and loss.
    """
    alpha, schedule = config.alpha, config.alpha_schedule
    found = f"{alpha:g} * hard + {1 - alpha:g} * soft"
    if schedule.kind != "constant":
        return Finding("alpha", f"{found} in the first epoch, then {schedule.kind} to alpha={schedule.final:g}")
    published = (config.loss.get("published") or {}).get("alpha")
    if 0.7 <= alpha < 1 and alpha != published:
        advice = f"alpha weighs the HARD term here, in other libraries the soft one: is alpha={1 - alpha:.3g} meant?"
        return Finding("alpha", found, "note", advice)
    return Finding("alpha", found)


def compares_samples(
    loss: Callable[[Outputs, Outputs, Batch], Tensor], student: Outputs, teacher: Outputs, batch: Batch
) -> bool | None:
    """Whether a loss compares the samples of a batch with each other, found by what it does.

    A loss of single samples is, for a batch, the mean of what it is for each pair of them. (Halves would tell less:
    statistics of half a batch are much like those of the whole.)

    Args:
        loss: the term, which takes what a `kdexp.contracts.FeatureLoss` takes.
        student: of a batch of an even number of labelled samples, with features.
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


def _comparing(config: Any, module: Distiller, probe: "Probe") -> Finding:
    check = "terms that compare samples"
    student, teacher, batch = _labelled_pair(module, probe)
    if len(batch.index) < 4:
        return Finding(check, "not examined: fewer than 4 labelled samples in a batch")
    own: list[str] = []
    foreign: list[str] = []
    unknown: list[str] = []
    losses = {} if module.soft_loss is None else {"soft": module.soft_loss}
    for name, loss in (losses | dict(module.feature_losses.named_children())).items():
        loss.eval()  # an adapter's batch norm compares samples too, and under DDP on purpose
        asked = (lambda s, t, b, loss=loss: loss(s.logits, t.logits, b.target)) if name == "soft" else loss
        compares = compares_samples(asked, student, teacher, batch)
        if compares is None:
            unknown.append(name)
        elif compares:
            (own if type(loss).__module__.startswith("kdexp.") else foreign).append(name)
    comparing = own + foreign
    found = ", ".join(comparing) or "none"
    found += f"; cannot be told of {', '.join(unknown)} (random, or with a state)" if unknown else ""
    world, size, classes = ranks(config.trainer), config.dataset.batch_size, config.dataset.num_classes
    if foreign and world > 1:
        advice = f"{', '.join(foreign)} must gather the batch of all ranks itself: see kdexp.losses.gather"
        return Finding(check, f"{found}; {world} ranks", "warning", advice)
    if own and world > 1:
        advice = f"they see the batch of all {world} ranks, {size} samples, as one process would"
        return Finding(check, found, "note", advice)
    if comparing and size < classes:
        advice = f"a batch of {size} has less than one sample for each of the {classes} classes: try a larger one"
        return Finding(check, found, "note", advice)
    return Finding(check, found)


def _labelled_pair(module: Distiller, probe: "Probe") -> tuple[Outputs, Outputs, Batch]:
    """Up to 32 labelled samples of the last examined batch, an even number, and both networks' outputs for them."""
    batch = probe.batch
    rows = batch.target.reshape(len(batch.target), -1)
    # A mixed target's row sums to the share of it that is labelled.
    labelled = rows.sum(1) > 0.999 if rows.is_floating_point() and module._task == "multiclass" else (
        (rows != UNLABELED).any(1)
    )  # fmt: skip
    kept = labelled.nonzero().squeeze(1)
    kept = kept[: min(len(kept) // 2 * 2, 32)]
    batch = Batch(batch.inputs[kept], batch.target[kept], batch.index[kept])
    module.eval()
    with torch.no_grad():
        student = module._read_student(batch.inputs)
        answer = module._ask_teacher(batch.inputs)
    other = Outputs(torch.randn_like(student.logits)) if answer is None else answer  # peers, or no need of a teacher
    return student, other, batch


def _finite(probe: "Probe", module: Distiller, stopped: str) -> Finding:
    """Whether all numbers are finite: inputs, logits, and the weights after the steps."""
    seen = {
        "inputs": probe.batch.inputs,
        "student's logits": torch.cat(probe.student_logits),
        "teacher's logits": torch.cat(probe.teacher_logits) if probe.teacher_logits else torch.zeros(0),
        **dict(module.named_parameters()),
    }
    bad = [name for name, values in seen.items() if not values.isfinite().all()]
    if stopped or bad:
        what = stopped or f"not finite: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
        advice = "lower the learning rate, clip the gradient (trainer.gradient_clip_val), or look at the terms above"
        return Finding("finite numbers", what, "error", advice)
    return Finding("finite numbers", f"inputs, logits, terms and weights, after {probe.steps} steps")


def unused_parameters(names: Sequence[str], trainer: Any, *, in_stages: bool = False) -> Finding:
    """Parameters that take part in no term; DDP raises an error in the second step when there are any.

    Args:
        names: of the parameters.
        trainer: the settings of the Trainer.
        in_stages: a term trains alone at first: `kdexp.experiment` then tells strategy ddp that there are some.
    """
    check = "parameters without a gradient"
    if not names:
        return Finding(check, "none")
    found = f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    waits = trainer.strategy in ("auto", "ddp") and not (in_stages and trainer.strategy == "ddp")
    if ranks(trainer) > 1 and waits:
        advice = "several ranks wait for their gradients: trainer.strategy=ddp_find_unused_parameters_true"
        return Finding(check, found, "error", advice)
    return Finding(check, found, "note", "no term uses them in the first epoch")


# Steps and their cost


class Probe(pl.Callback):
    """Looks at the first steps of a training, times the next, and then stops it.

    Args:
        heard: gets what losses warn of.
        val_inputs: normalised; what the teacher says of them before and after the training is compared.

    Attributes:
        terms: name -> what was measured, of the terms that act on the student.
        student_logits: (N, C), of each examined batch, on the CPU.
        teacher_logits: likewise; empty without a teacher.
        batch: the last examined one.
        steps: batches trained on.
        epoch_steps: batches in an epoch of the run.
        unused: trainable parameters to which the first step gave no gradient.
        optimizer_bytes: size of the optimizer's state.
        step_seconds: mean duration of a step, loading included; NaN when the run is too short to tell.
        val_seconds: mean duration of a validation batch; NaN likewise.
        peak_bytes: most memory in use; on a GPU that of the timed steps, else the whole process's.
    """

    batch: Batch

    def __init__(self, heard: list[str], val_inputs: Tensor) -> None:
        self.terms: dict[str, Measured] = {}
        self.student_logits: list[Tensor] = []
        self.teacher_logits: list[Tensor] = []
        self.steps = self.epoch_steps = self.peak_bytes = self.optimizer_bytes = 0
        self.unused: list[str] = []
        self.step_seconds = self.val_seconds = math.nan
        self._heard, self._val_inputs = heard, val_inputs
        self._timed_from: float | None = None
        self._timed_steps, self._validating = 0, 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hear what the teacher says before the training."""
        assert isinstance(pl_module, Distiller)
        self._device, self._precision = trainer.strategy.root_device, trainer.precision_plugin
        self._val_inputs = self._val_inputs.to(self._device)
        if pl_module.teacher is not None:
            self._before = pl_module.teacher.to(self._device)(self._val_inputs).logits

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Examine the batch before it is trained on; or start the clock."""
        assert isinstance(pl_module, Distiller)
        self.epoch_steps = int(trainer.num_training_batches)
        available = self.epoch_steps * int(trainer.max_epochs or 1)
        if self.steps < min(EXAMINED, max(available // 2, 1)):
            with _hearing(self._heard), self._precision.train_step_context():
                self._examine(pl_module, batch)
        elif self._timed_from is None:
            if self._device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self._device)
            self._timed_from = self._now()

    def _examine(self, module: Distiller, batch: Batch) -> None:
        self.batch = batch
        logits, terms = module._training_terms(batch)
        self.student_logits.append(logits.detach().float().cpu())
        stats = module._gradient_stats({name: part for name, part in terms.items() if part[1].requires_grad})
        peers = tuple(f"_{name}" for name in getattr(module, "peers", {}))
        for name, (weight, value) in terms.items():
            if name.endswith(peers):  # a peer's own term
                continue
            measured = self.terms.setdefault(name, Measured())
            measured.weight = weight
            measured.values.append(float(value.detach()))
            if weight > 0:
                measured.norms.append(float(stats.get(f"grad_norm_{name}", 0.0)))
            cosine = stats.get("grad_cosine" if name == "soft" else f"grad_cosine_{name}")
            measured.cosines += [] if cosine is None else [float(cosine)]
        answer = module._ask_teacher(batch.inputs)
        if answer is not None:
            self.teacher_logits.append(answer.logits.float().cpu())

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Note which parameters have no gradient."""
        if trainer.global_step == 0:
            trained = ((name, p) for name, p in pl_module.named_parameters() if p.requires_grad)
            self.unused = [name for name, parameter in trained if parameter.grad is None]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; stop when enough steps were timed."""
        self.steps += 1
        if self._timed_from is None:
            return
        self._timed_steps += 1
        if self._timed_steps == _TIMED_STEPS or time.perf_counter() - self._timed_from > _TIMED_SECONDS:
            self._stop_clock()
            trainer.should_stop = True

    def _stop_clock(self) -> None:
        if self._timed_from is not None and math.isnan(self.step_seconds):
            self.step_seconds = (self._now() - self._timed_from - self._validating) / self._timed_steps

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of a validation."""
        self._validation_from = self._now()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        seconds = self._now() - self._validation_from
        self._validating += seconds if self._timed_from is not None else 0.0
        self.val_seconds = seconds / sum(trainer.num_val_batches)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the clock, if the run ended before, and the memory."""
        self._stop_clock()
        state = (value for values in trainer.optimizers[0].state.values() for value in values.values())
        self.optimizer_bytes = sum(value.nbytes for value in state if isinstance(value, Tensor))
        if self._device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device)
        else:  # ru_maxrss is in KiB on Linux and in bytes on macOS
            unit = 1 if sys.platform == "darwin" else 1024
            self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def teacher_findings(self, frozen: Teacher | None) -> list[Finding]:
        """See `frozen_and_steady`."""
        return [] if frozen is None else frozen_and_steady(frozen, self._before, self._val_inputs)

    def teacher_seconds(self, module: Distiller) -> float:
        """Duration of asking the teacher about a batch; 0 without one."""
        with self._precision.forward_context():
            module._ask_teacher(self.batch.inputs)  # warms up
            started = self._now()
            for _ in range(3):
                module._ask_teacher(self.batch.inputs)
            return (self._now() - started) / 3

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def take_steps(module: Distiller, data: assemble.Data, config: Any, probe: Probe) -> str:
    """Train on one device until the probe has seen enough.

    Returns:
        Why the training stopped by itself; empty when it did not.
    """
    settings = config.trainer
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.precision,
            max_epochs=settings.max_epochs,
            limit_train_batches=settings.limit_train_batches,
            limit_val_batches=min(_val_batches(config, data), _VAL_BATCHES),
            accumulate_grad_batches=settings.accumulate_grad_batches,
            gradient_clip_val=settings.gradient_clip_val,
            default_root_dir=folder,
            callbacks=[probe],
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, datamodule=data.student)
        except RuntimeError as error:  # Diverged, out of memory, no gradient anywhere, shapes that differ
            return (str(error) or type(error).__name__).splitlines()[0]
    return ""


def _val_batches(config: Any, data: assemble.Data) -> int:
    """Batches of a validation of the run."""
    batches = -(-len(data.student.splits.val) // int(config.dataset.eval_batch_size))
    limit: int | float | None = config.trainer.limit_val_batches
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def _cost(config: Any, module: Distiller, data: assemble.Data, probe: Probe) -> list[Finding]:
    memory = f"{_size(probe.peak_bytes)}, most of the GPU's in the timed steps"
    if probe.batch.inputs.device.type != "cuda":
        memory = f"{_size(probe.peak_bytes)}, of the whole process up to now"
    student = sum(tensor.nbytes for tensor in module.student.state_dict().values())
    checkpoint = sum(tensor.nbytes for tensor in module.state_dict().values()) + probe.optimizer_bytes
    kept = [
        Finding("memory", memory),
        Finding("disk", f"student {_size(student)}, two checkpoints of {_size(checkpoint)}"),
    ]
    if math.isnan(probe.step_seconds):
        return [Finding("speed", f"cannot be told from {probe.steps} steps"), *kept]
    size, epochs, val = config.dataset.batch_size, config.trainer.max_epochs, _val_batches(config, data)
    rate = f"{size / probe.step_seconds:.0f} samples/s, {1e3 * probe.step_seconds:.1f} ms a step"
    share = min(probe.teacher_seconds(module) / probe.step_seconds, 1.0)
    if probe.teacher_logits:
        rate += f", {share:.0%} of it the teacher's"
    if config.trainer.compile:
        rate += ", without trainer.compile"
    validation = val * probe.val_seconds if val else 0.0
    whole = epochs * (probe.epoch_steps * probe.step_seconds + validation)
    run = f"about {_duration(whole)}: {epochs} epochs of {probe.epoch_steps} steps and {val} validation batches"
    world = ranks(config.trainer)
    if world > 1:
        run += f", on one device; the run has {world}"
    return [Finding("speed", rate), Finding("whole training", run), *kept]


def _short(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
