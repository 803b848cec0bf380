"""Checks of the teacher: what it reaches, whether it is frozen and deterministic, and how confident it is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.contracts import Kind
from kdexp.doctor.finding import Finding
from kdexp.doctor.measurements import TeacherState


def on_val(found: str, advice: str) -> Finding:
    """What the teacher reaches on val; see `kdexp.experiment.near_chance.teacher_on_val`."""
    return Finding("teacher on val", found, "warning" if advice else "ok", advice)


def frozen(state: TeacherState) -> Finding:
    """Whether the teacher is in eval mode and takes no gradient."""
    wrong = [f"{state.training_modules} modules in training mode"] if state.training_modules else []
    wrong += [f"{state.trainable_parameters} parameters with requires_grad"] if state.trainable_parameters else []
    if wrong:
        advice = "call eval() and requires_grad_(False) on its networks"
        return Finding("teacher frozen", ", ".join(wrong), "error", advice)
    return Finding("teacher frozen", "eval mode, no gradient")


def deterministic(state: TeacherState) -> Finding:
    """Whether the teacher gives the same logits twice, and those that it gave before the student's training."""
    check = "teacher deterministic"
    first, second = state.after
    if not _same(first, second):
        advice = "it draws random numbers in eval mode, or keeps a state: look for functional dropout"
        return Finding(check, "two forward passes of a batch differ", "error", advice)
    if not _same(state.before, first):
        advice = "something trains it or moves its batch norm's statistics"
        return Finding(check, "its logits changed while the student was trained", "error", advice)
    return Finding(check, "two forward passes agree, and with one before the training")


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)  # a GPU may add up in another order


def logit_scale(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Finding:
    """The size of both networks' logits.

    Args:
        student: (N, C, ...) logits, a tensor for each batch.
        teacher: likewise; empty without a teacher.
    """
    found = f"student {_scale(student):.3g}"
    if teacher:
        found += f", teacher {_scale(teacher):.3g}"
    return Finding("logit scale", found)


def _scale(logits: Sequence[Tensor]) -> float:
    """Root mean square of the logits; over classes around their mean, which a softmax does not see."""
    together = torch.cat(list(logits)).double()
    if together.shape[1] > 1:
        together = together - together.mean(1, keepdim=True)
    return float(together.square().mean().sqrt())


def confidence(logits: Tensor, temperature: float, kind: Kind) -> Finding:
    """The teacher's mean probability of its first choice at the temperature; near 1 it says no more than a label.

    Args:
        logits: (N, C, ...), the teacher's.
        temperature: T.
        kind: what the logits mean.
    """
    check = "teacher confidence"
    scaled = logits.float() / temperature
    top = scaled.softmax(1).amax(1) if kind == "multiclass" else torch.maximum(scaled.sigmoid(), (-scaled).sigmoid())
    mean, least = float(top.mean()), 1 / (logits.shape[1] if kind == "multiclass" else 2)
    found = f"mean top-1 probability {mean:.3f} at T={temperature:g}"
    if mean > 0.99:
        advice = "the soft term says little more than the labels: try a higher temperature"
        return Finding(check, found, "note", advice)
    if mean < least + 0.02 * (1 - least):
        return Finding(check, found, "note", "nearly uniform: try a lower temperature")
    return Finding(check, found)
