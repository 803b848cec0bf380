"""All checks of one experiment, in the order of the table."""

from collections.abc import Iterator
from typing import cast

import torch

from kdexp.config.identity import Identity
from kdexp.contracts import Batch, Kind
from kdexp.data.settings import Dataset
from kdexp.doctor import data_checks, loss_checks, teacher_checks, training_checks
from kdexp.doctor.finding import Finding
from kdexp.doctor.inspection import InspectionCallback, caught_warnings, take_steps
from kdexp.doctor.measurements import batch_dependence, input_moments, network_size, teacher_state, val_inputs
from kdexp.experiment import dry_build, teacher_measures
from kdexp.experiment.experiment import Experiment
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller
from kdexp.training.settings import Trainer


def run_checks(experiment: Experiment) -> Iterator[Finding]:
    """Build an experiment, take a few steps of it and judge what is measured; nothing of the student is kept.

    A teacher that is to be trained and is not in the store yet is trained now, as the run would do, and kept there.

    Args:
        experiment: of a checked configuration.

    Yields:
        Findings as they come.

    Raises:
        ValueError: a value with which the experiment cannot be built.
        FileNotFoundError: data or weights are not where the configuration says.
    """
    config, caught = experiment.config, list[str]()
    with caught_warnings(caught):
        dry_build.dry_build(experiment)
    early = len(caught)
    yield from map(loss_checks.loss_warning, caught)
    data = experiment.data
    kind = cast(Kind, config.dataset.kind)
    yield from data_checks.class_counts(data.student.splits, kind, config.dataset.num_classes)
    yield from training_checks.batch_and_ranks(config.dataset, config.trainer, experiment.new_student(pretrained=None))
    teacher = experiment.teacher
    yield from _inputs(experiment)
    if teacher is not None:
        yield teacher_checks.teacher_accuracy(*teacher_measures.teacher_on_val(experiment))
    yield _sizes(experiment)
    with caught_warnings(caught):
        distiller = experiment.distiller
    inspection = InspectionCallback(caught, val_inputs(data.student))
    batches = -(-len(data.student.splits.val) // int(config.dataset.eval_batch_size))
    val_batches = _limited(batches, config.trainer.limit_val_batches)
    stopped = take_steps(distiller, data.student, config.trainer, inspection, val_batches=val_batches)
    if not inspection.terms:
        yield Finding("first step", stopped, "error", "kdexp-train would fail with this")
        return
    distiller.to(inspection.batch.inputs.device)  # the Trainer takes it to the CPU when it ends
    if teacher is not None:
        yield from _teacher_state(teacher, inspection)
    yield from _logits(kind, distiller, inspection)
    if "soft" in inspection.terms:
        published = (config.loss.get("published") or {}).get("alpha")
        yield loss_checks.alpha_convention(config.alpha, config.alpha_schedule, published)
    yield from loss_checks.term_findings(inspection.terms, degenerate=bool(caught))
    yield from map(loss_checks.loss_warning, caught[early:])
    if len(inspection.terms) > 1:
        yield _batch_dependent(config.dataset, config.trainer, distiller, inspection.batch)
    yield _nan_or_inf(distiller, inspection, stopped)
    in_stages = any(loss.get("init_fraction") for loss in config.feature_loss.values())
    yield training_checks.unused_parameters(inspection.unused, config.trainer, in_stages=in_stages)
    if not stopped:
        yield from _cost(config.trainer, config.dataset.batch_size, distiller, inspection, val_batches)


def _inputs(experiment: Experiment) -> list[Finding]:
    per_channel = len(experiment.config.dataset.mean) > 1
    student, teachers = input_moments(
        experiment.data.student, experiment.teacher, experiment.device, per_channel=per_channel
    )
    return data_checks.inputs(student.compute(), [moments.compute() for moments in teachers])


def _sizes(experiment: Experiment) -> Finding:
    config, teacher = experiment.config, experiment.teacher
    shape, scheme = list(config.dataset.input_shape), config.scheme.get("name")
    why = "the control" if Identity(config).is_control else f"scheme={scheme}" if scheme else "the loss needs none"
    return training_checks.network_sizes(
        network_size([experiment.student], shape),
        None if teacher is None else network_size(teacher.networks, shape),
        why_no_teacher=why,
    )


def _limited(batches: int, limit: int | float | None) -> int:
    """Batches of a validation of the run, as ``trainer.limit_val_batches`` limits them."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def _teacher_state(teacher: Teacher, inspection: InspectionCallback) -> list[Finding]:
    state = teacher_state(teacher, inspection.teacher_before, inspection.val_inputs)
    return [teacher_checks.frozen(state), teacher_checks.deterministic(state)]


def _logits(kind: Kind, distiller: Distiller, inspection: InspectionCallback) -> list[Finding]:
    findings = [teacher_checks.logit_scale(inspection.student_logits, inspection.teacher_logits)]
    if inspection.teacher_logits and distiller.soft_loss is not None:
        logits = torch.cat(inspection.teacher_logits)
        findings.append(teacher_checks.confidence(logits, distiller.temperature, kind))
    return findings


def _batch_dependent(dataset: Dataset, trainer: Trainer, distiller: Distiller, batch: Batch) -> Finding:
    return loss_checks.batch_dependent(
        batch_dependence(distiller, batch),
        ranks=training_checks.ranks(trainer),
        batch_size=dataset.batch_size,
        num_classes=dataset.num_classes,
    )


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
            teacher_seconds=inspection.teacher_seconds(distiller) if inspection.teacher_logits else None,
        ),
        *training_checks.memory_and_disk(
            cost,
            student_bytes=sum(tensor.nbytes for tensor in distiller.student.state_dict().values()),
            weights_bytes=sum(tensor.nbytes for tensor in distiller.state_dict().values()),
        ),
    ]
