"""Checks of the first training steps: the terms of the loss, what the teacher did meanwhile, time and memory."""

from collections.abc import Iterator

import torch
from omegaconf import OmegaConf

from kdexp.contracts import Kind
from kdexp.doctor import loss_checks, teacher_checks, training_checks
from kdexp.doctor.finding import Finding
from kdexp.doctor.inspection import InspectionCallback, caught_warnings, take_steps
from kdexp.doctor.measurements import batch_dependence, teacher_state, val_inputs
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.members import ROWS, compared_by
from kdexp.training.distiller import Distiller
from kdexp.training.settings import Trainer


def check_steps(experiment: Experiment, caught: list[str]) -> Iterator[Finding]:
    """Take a few steps of an experiment and judge what they show.

    Args:
        experiment: of a checked configuration.
        caught: warnings of losses and networks that are shown already; gets those of the steps.

    Yields:
        Findings as they come.
    """
    config, data = experiment.config, experiment.data
    trainer: Trainer = OmegaConf.merge(config.trainer, {"max_epochs": experiment.epochs})  # type: ignore[assignment]
    early = len(caught)
    with caught_warnings(caught):
        distiller = experiment.distiller
    teacher = experiment.teacher
    if teacher is not None and not teacher.takes_any_inputs:
        distiller.cache, teacher = experiment.cache, None
    inspection = InspectionCallback(caught, val_inputs(data.student))
    batches = -(-len(data.student.splits.val) // int(config.dataset.eval_batch_size))
    val_batches = _limited(batches, trainer.limit_val_batches)
    stopped = take_steps(distiller, data.student, trainer, inspection, val_batches=val_batches)
    if not inspection.terms:
        yield Finding("first step", stopped, "error", "kdexp-train would fail with this")
        return
    distiller.to(inspection.batch.inputs.device)  # the Trainer takes it to the CPU when it ends
    if teacher is not None:
        state = teacher_state(teacher, inspection.teacher_before, inspection.val_inputs)
        yield from (teacher_checks.frozen(state), teacher_checks.deterministic(state))
    if compared_by(data.task) == ROWS:
        yield from _logits(data.task.kind, distiller, inspection)
    if "soft" in inspection.terms:
        published = (config.loss.get("published") or {}).get("alpha")
        yield loss_checks.alpha_convention(config.alpha, config.alpha_schedule, published)
    yield from loss_checks.term_findings(inspection.terms, degenerate=bool(caught))
    yield from map(loss_checks.loss_warning, caught[early:])
    if len(inspection.terms) > 1:
        yield loss_checks.batch_dependent(
            batch_dependence(distiller, inspection.batch),
            ranks=training_checks.ranks(trainer),
            batch_size=config.dataset.batch_size,
            num_classes=config.dataset.num_classes,
        )
    yield _nan_or_inf(distiller, inspection, stopped)
    in_stages = any(loss.get("init_fraction") for loss in config.feature_loss.values())
    yield training_checks.unused_parameters(inspection.unused, trainer, in_stages=in_stages)
    if not stopped:
        yield from _cost(trainer, config.dataset.batch_size, distiller, inspection, val_batches)


def _limited(batches: int, limit: int | float | None) -> int:
    """Batches of a validation of the run, as ``trainer.limit_val_batches`` limits them."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def _logits(kind: Kind, distiller: Distiller, inspection: InspectionCallback) -> list[Finding]:
    findings = [teacher_checks.logit_scale(inspection.student_logits, inspection.teacher_logits)]
    if inspection.teacher_logits and distiller.soft_loss is not None:
        logits = torch.cat(inspection.teacher_logits)
        findings.append(teacher_checks.confidence(logits, distiller.temperature, kind))
    return findings


def _nan_or_inf(distiller: Distiller, inspection: InspectionCallback, stopped: str) -> Finding:
    tensors = {"inputs": inspection.batch.inputs, "student's logits": torch.cat(inspection.student_logits)}
    if inspection.teacher_logits:
        tensors["teacher's logits"] = torch.cat(inspection.teacher_logits)
    tensors |= dict(distiller.named_parameters())
    return training_checks.nan_or_inf(tensors, steps=inspection.cost.steps, stopped=stopped)


def _cost(
    trainer: Trainer, batch_size: int, distiller: Distiller, inspection: InspectionCallback, val_batches: int
) -> list[Finding]:
    cost = inspection.cost
    return [
        *training_checks.speed(
            cost,
            trainer,
            batch_size=batch_size,
            val_batches=val_batches,
            teacher_seconds=inspection.teacher_seconds(distiller)
            if inspection.teacher_logits and not distiller.cache
            else None,
        ),
        *training_checks.memory_and_disk(
            cost,
            student_bytes=sum(tensor.nbytes for tensor in distiller.student.state_dict().values()),
            weights_bytes=sum(tensor.nbytes for tensor in distiller.state_dict().values()),
        ),
    ]
