"""What a student learns from a teacher that does not know all of its classes."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Kind, Outputs, Task


class OnKnownClasses:
    """A task whose soft term is over some of the classes, those that the teacher knows; all else is as it is.

    The loss is given the logits of these classes alone, of student and teacher, so that both distributions are
    renormalised over them: the student's other classes get no gradient from it, and are learned from the labels.

    Args:
        task: the task; its rows are logits.
        known: numbers of the classes.
    """

    def __init__(self, task: Task, known: list[int]) -> None:
        self._task, self._known = task, torch.tensor(known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """See `kdexp.contracts.Task`."""
        known = self._known.to(student.logits.device)
        if self._task.kind == "multilabel":
            batch = replace(batch, target=batch.target.index_select(1, known))
        one, other = (outputs._replace(logits=outputs.logits.index_select(1, known)) for outputs in (student, teacher))
        return self._task.soft(loss, one, other, batch)


def refuse_labels(loss: nn.Module, known: int, kind: Kind) -> None:
    """See that a soft loss does not read the labels, which may be of a class that the teacher does not know.

    Args:
        loss: ``forward(student_logits, teacher_logits, target)``.
        known: how many classes the teacher knows.
        kind: what the logits mean.

    Raises:
        ValueError: it does.
    """
    drawn = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, known, generator=drawn) for _ in range(2))
    values = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for label in (0, 1):
            torch.manual_seed(0)
            target = torch.full((4, known), float(label)) if kind == "multilabel" else torch.full((4,), label)
            values.append(float(copy.deepcopy(loss)(student, teacher, target)))
    if values[0] != values[1]:
        name = type(loss).__name__
        raise ValueError(
            f"loss must not read labels where teacher.classes leaves out classes of the data set, got {name}"
        )
