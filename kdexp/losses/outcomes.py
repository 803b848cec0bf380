"""What the soft losses do to their inputs before their own formula begins."""

import warnings
from functools import cache

import torch
from torch import Tensor

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_logits, check_scalars, check_shapes, check_target


def outcomes(student_logits: Tensor, teacher_logits: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """Both networks' logits, such that a softmax along dimension 1 gives their probabilities, whatever the task.

    A sigmoid is a softmax over the logits (0, z): each label of a binary or multi-label task becomes a distribution
    over the outcomes no and yes at a position of its own. Every formula for softmax outputs then holds for those
    tasks too, with two classes, and the mean over positions is the mean over labels.

    Args:
        student_logits: (N, C) or dense (N, C, ...); C is 1 for the binary task.
        teacher_logits: the same shape.
        kind: what the logits mean.

    Returns:
        The student's and the teacher's logits, at least float32, the teacher's without a gradient: (N, C, ...) for
        multiclass, (N, 2, C, ...) else.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_logits(kind, student_logits=student_logits, teacher_logits=teacher_logits)
    both = at_least_fp32(student_logits), at_least_fp32(teacher_logits.detach())
    if kind == "multiclass":
        return both
    student_yes, teacher_yes = both
    no = torch.zeros_like(student_yes)
    return torch.stack((no, student_yes), 1), torch.stack((no, teacher_yes), 1)


def class_numbers(target: Tensor, logits: Tensor, kind: Kind) -> Tensor:
    """The true class of each distribution of `outcomes`, or ``UNLABELED``.

    A mixed target (after mixup) counts as the class with the largest share, as in the authors' code of NKD.

    Args:
        target: see `kdexp.contracts.Kind`; int64 class numbers, or float32 fractions of shape (N, C, ...) after mixup.
        logits: (N, C, ...), from `outcomes`.
        kind: what target means.

    Returns:
        int64, the shape of the logits without dimension 1.

    Raises:
        ValueError: a target that does not belong to the logits.
    """
    check_shapes("N C ...", logits=logits)
    shape = logits.shape[:1] + logits.shape[2:]
    check_target(target, logits.shape if kind == "multiclass" else shape, kind)
    if kind != "multiclass":
        target = target.reshape(shape)
        return torch.where(target == UNLABELED, target, (target > 0.5).to(target.dtype)).long()
    if target.is_floating_point():
        return torch.where(target.sum(1) > 0, target.argmax(1), UNLABELED)
    return target


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """Values of one class for each distribution: (N, ...). Those of ``UNLABELED`` are arbitrary.

    Args:
        values: (N, C, ...).
        classes: (N, ...) int64.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C ..., N ...", values=values, classes=classes)
    return values.gather(1, classes.clamp(min=0).unsqueeze(1)).squeeze(1)


def of_other_classes(values: Tensor, classes: Tensor) -> Tensor:
    """Values of all classes but one: (N, C - 1, ...). Those of ``UNLABELED`` are arbitrary.

    Args:
        values: (N, C, ...).
        classes: (N, ...) int64.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C ..., N ...", values=values, classes=classes)
    shape = (1, -1, *[1] * (values.ndim - 2))
    others = torch.arange(values.shape[1] - 1, device=values.device).view(shape)
    # The numbers from the left-out class on move up by one: nothing is masked, so nothing is lost to rounding.
    return values.gather(1, others + (others >= classes.clamp(min=0).unsqueeze(1)).long())


def labelled_mean(values: Tensor, classes: Tensor) -> Tensor:
    """Mean over what is labelled; 0, with a gradient of 0, when nothing is.

    Args:
        values: (N, ...).
        classes: the same shape, int64.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes("N ..., N ...", values=values, classes=classes)
    labelled = (classes != UNLABELED).to(values.dtype)
    return (values * labelled).sum() / labelled.sum().clamp(min=1)


def check_temperature(temperature: float | Tensor) -> None:
    """Refuse a temperature that is not positive, or not a scalar.

    The value of a tensor is not looked at: it may be vmap's.

    Raises:
        ValueError: temperature <= 0, or a tensor with dimensions.
    """
    check_scalars(temperature=temperature)
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")


@cache
def warn_once(message: str) -> None:
    """Warn of what holds for every batch: once in a process.

    Python's own filter forgets what it has shown when any ``warnings.catch_warnings`` ends, as in every epoch of a
    training, and would say it again each time.
    """
    warnings.warn(message, stacklevel=3)  # where the caller of the loss stands
