"""The soft term of Zhou et al., "Rethinking Soft Labels for Knowledge Distillation" (ICLR 2021, arXiv 2102.00650)."""

import torch
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, class_numbers, labelled_mean, of_class, outcomes


def wsld(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float, *, kind: Kind = "multiclass"
) -> Tensor:
    """``T^2 * w * KL(softmax(z_t / T) || softmax(z_s / T))`` with ``w = 1 - exp(-CE_s / CE_t)`` for each sample.

    CE are the cross entropies of student and teacher with the true label, at temperature 1; no gradient goes through
    w. Samples that the student knows better than the teacher (the paper: those that add bias rather than remove
    variance) count less.

    The paper has the cross entropy of the softened outputs where KL stands here: they differ by w times the teacher's
    entropy, which changes the value, not the gradient, and hides how close the student is.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        target: see `kdexp.contracts.Kind`. The mean is over what is labelled, and 0 when nothing is; a mixed target
            counts as its largest share.
        temperature: T > 0; published: 2 (ImageNet).
        kind: what the logits mean.

    Returns:
        Scalar >= 0; 0 when student and teacher are equal.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    classes = class_numbers(target, student, kind)
    ce_student, ce_teacher = (-of_class(x.log_softmax(1), classes) for x in (student.detach(), teacher))
    tiny = torch.finfo(student.dtype).tiny  # 0 / 0, both being certain and right, counts as 0
    weight = -torch.expm1(-ce_student / (ce_teacher + tiny))
    divergence = kl((teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1))
    return temperature**2 * labelled_mean(weight * divergence, classes)


class WSLD(nn.Module):
    """`wsld` as a module.

    Args:
        temperature: T > 0.
        kind: see `wsld`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float = 2.0, kind: Kind = "multiclass") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `wsld`."""
        return wsld(student_logits, teacher_logits, target, self.temperature, kind=self._kind)
