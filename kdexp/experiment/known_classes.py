"""What a student learns from a teacher that does not know all of its classes."""

import copy
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Kind, Outputs, Task
from kdexp.teacher.class_mapping import known_classes
from kdexp.teacher.teacher import Teacher


def on_known_classes(task: Task, teacher: Teacher | None, loss: nn.Module | None) -> Task:
    """The task, or one whose soft term is over the classes alone that the teacher knows.

    Args:
        task: the experiment's.
        teacher: None: there is none.
        loss: the soft loss, ``forward(student_logits, teacher_logits, target)``; None: there is none.

    Raises:
        ValueError: the loss cannot do without the others.
    """
    known = None if teacher is None or loss is None else known_classes(teacher.networks)
    if known is None or loss is None:
        return task
    check_loss(loss, len(known), task.kind)
    return cast(Task, OnKnownClasses(task, tuple(known)))


@dataclass(frozen=True)
class OnKnownClasses:
    """A task whose soft term is over some of the classes, those that the teacher knows; all else is as it is.

    The loss is given the logits of these classes alone, of student and teacher, so that both distributions are
    renormalised over them: the student's other classes get no gradient from it, and are learned from the labels.

    Attributes:
        task: the task; its rows are logits.
        known: numbers of the classes.
    """

    task: Task
    known: tuple[int, ...]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of a copy, which has no task yet
            raise AttributeError(name)
        return getattr(self.task, name)

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """See `kdexp.contracts.Task`."""
        known = torch.tensor(self.known, device=student.logits.device)
        if self.task.kind == "multilabel":
            batch = replace(batch, target=batch.target.index_select(1, known))
        one, other = (outputs._replace(logits=outputs.logits.index_select(1, known)) for outputs in (student, teacher))
        return self.task.soft(loss, one, other, batch)


def check_loss(loss: nn.Module, known: int, kind: Kind) -> None:
    """See that a soft loss can do with some of the classes: its labels may be of one that the teacher does not know.

    Args:
        loss: ``forward(student_logits, teacher_logits, target)``.
        known: how many classes the teacher knows.
        kind: what the logits mean.

    Raises:
        ValueError: it reads labels; or there is nothing left to compare.
    """
    if known < (2 if kind == "multiclass" else 1):
        raise ValueError(f"teacher.classes must leave classes to compare that all teachers know, got {known}")
    drawn = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, known, generator=drawn) for _ in range(2))
    values = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for label in (0, 1):
            torch.manual_seed(0)
            target = torch.full((4, known), float(label)) if kind == "multilabel" else torch.full((4,), label)
            values.append(float(copy.deepcopy(loss)(student, teacher, target)))
    if values[0] != values[1]:
        rule = "must not read labels where teacher.classes leaves out classes of the data set"
        raise ValueError(f"loss {rule}, got {type(loss).__name__}")
