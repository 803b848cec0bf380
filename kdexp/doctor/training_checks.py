"""Checks of the run: its batches and ranks, unused parameters, NaN and Inf, the networks' sizes, time and memory."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdexp.data.settings import Dataset
from kdexp.doctor.finding import Finding, format_bytes, format_count, format_duration
from kdexp.doctor.inspection import Cost
from kdexp.doctor.measurements import NetworkSize
from kdexp.training.settings import Trainer


def ranks(trainer: Trainer) -> int:
    """Processes that the run would have."""
    devices = trainer.devices
    if devices == "auto":
        count = 1 if trainer.accelerator == "cpu" else max(torch.accelerator.device_count(), 1)
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return int(count * trainer.num_nodes)


def batch_and_ranks(dataset: Dataset, trainer: Trainer, student: nn.Module) -> list[Finding]:
    """How a batch is divided among the ranks, and what that means for the student's batch norm."""
    size, world = dataset.batch_size, ranks(trainer)
    if world == 1:
        return [Finding("batch", f"{size} samples, 1 rank")]
    found = f"{size} samples of all {world} ranks, {size / world:.3g} each"
    if dataset.drop_last and size % world:
        advice = f"make dataset.batch_size divisible by {world}"
        return [Finding("batch", f"dataset.batch_size={size} on {world} ranks", "error", advice)]
    advice = "dataset.batch_size is the global batch size; tune the learning rate for it, not for the per-rank batch"
    findings = [Finding("batch", found, "note", advice)]
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules())
    if has_batch_norm and not trainer.sync_batchnorm:
        advice = "trainer.sync_batchnorm=true computes the statistics over all ranks"
        findings.append(Finding("batch norm", f"statistics of {size / world:.3g} samples", "note", advice))
    return findings


def network_sizes(student: NetworkSize, teacher: NetworkSize | None, *, why_no_teacher: str) -> Finding:
    """Parameters and multiply-accumulates (MACs) a sample of both networks."""
    found = f"student {format_count(student.parameters)} parameters, {format_count(student.macs)} MACs"
    if teacher is None:
        return Finding("size", f"{found}; no teacher: {why_no_teacher}")
    found += f"; teacher {format_count(teacher.parameters)}, {format_count(teacher.macs)} ("
    found += (
        f"{teacher.parameters / max(student.parameters, 1):.1f} and {teacher.macs / max(student.macs, 1):.1f} times)"
    )
    if teacher.parameters < student.parameters:
        return Finding("size", found, "note", "the student is larger than the teacher: is that intended?")
    return Finding("size", found)


def nan_or_inf(tensors: Mapping[str, Tensor], *, steps: int, stopped: str) -> Finding:
    """Whether all numbers are finite: inputs, logits, and the weights after the steps.

    Args:
        tensors: by name.
        steps: how many were taken.
        stopped: why the training stopped by itself; empty when it did not.
    """
    bad = [name for name, values in tensors.items() if not values.isfinite().all()]
    if stopped or bad:
        found = stopped or f"NaN or Inf in {_some(bad)}"
        advice = "lower the learning rate, clip the gradient (trainer.gradient_clip_val), or look at the terms above"
        return Finding("NaN/Inf", found, "error", advice)
    return Finding("NaN/Inf", f"none in inputs, logits, terms and weights, after {steps} steps")


def unused_parameters(names: Sequence[str], trainer: Trainer, *, in_stages: bool = False) -> Finding:
    """Parameters that take part in no term; DDP raises an error in the second step when there are any.

    Args:
        names: of the parameters.
        trainer: the Trainer's config keys.
        in_stages: a term trains alone at first: `kdexp.experiment` then tells strategy ddp that there are some.
    """
    check = "parameters without a gradient"
    if not names:
        return Finding(check, "none")
    found = f"{len(names)}: {_some(names)}"
    waits = trainer.strategy in ("auto", "ddp") and not (in_stages and trainer.strategy == "ddp")
    if ranks(trainer) > 1 and waits:
        advice = "DDP waits for their gradients: set trainer.strategy=ddp_find_unused_parameters_true"
        return Finding(check, found, "error", advice)
    return Finding(check, found, "note", "no term uses them in the first epoch")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def speed(
    cost: Cost, trainer: Trainer, *, batch_size: int, val_batches: int, teacher_seconds: float | None
) -> list[Finding]:
    """Samples a second, and how long the whole training will take.

    Args:
        cost: of the timed steps.
        trainer: the Trainer's config keys.
        batch_size: samples in a batch of all ranks.
        val_batches: batches of a validation of the run.
        teacher_seconds: duration of the teacher's forward pass of a batch; None without a teacher.
    """
    if math.isnan(cost.step_seconds):
        return [Finding("speed", f"unknown: too few steps to time ({cost.steps})")]
    rate = f"{batch_size / cost.step_seconds:.0f} samples/s, {1e3 * cost.step_seconds:.1f} ms a step"
    if teacher_seconds is not None:
        rate += f", {min(teacher_seconds / cost.step_seconds, 1.0):.0%} of it the teacher's forward pass"
    if trainer.compile:
        rate += ", without trainer.compile"
    validation = val_batches * cost.val_seconds if val_batches else 0.0
    epochs, world = trainer.max_epochs, ranks(trainer)
    whole = format_duration(epochs * (cost.epoch_steps * cost.step_seconds + validation))
    run = f"about {whole}: {epochs} epochs of {cost.epoch_steps} steps and {val_batches} validation batches"
    if world > 1:
        run += f", on one device; the run has {world}"
    return [Finding("speed", rate), Finding("training time", run)]


def memory_and_disk(cost: Cost, *, student_bytes: int, weights_bytes: int) -> list[Finding]:
    """Peak memory of the steps, and the size of the run's files.

    Args:
        cost: of the steps.
        student_bytes: of the student's state dict.
        weights_bytes: of everything that is trained, without the optimizer's state.
    """
    where = ", peak of the GPU in the timed steps" if cost.on_gpu else ", peak of the whole process so far"
    checkpoint = format_bytes(weights_bytes + cost.optimizer_bytes)
    return [
        Finding("memory", format_bytes(cost.peak_bytes) + where),
        Finding("disk", f"student {format_bytes(student_bytes)}, two checkpoints of {checkpoint}"),
    ]
