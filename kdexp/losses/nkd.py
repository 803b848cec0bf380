"""NKD of Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation" (arXiv 2303.13005)."""

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.outcomes import (
    check_temperature,
    class_numbers,
    labelled_mean,
    of_class,
    of_other_classes,
    outcomes,
    warn_once,
)
from kdexp.losses.shapes import check_scalars


def nkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    *,
    gamma: float = 1.5,
    kind: Kind = "multiclass",
) -> Tensor:
    """``-p_t(y) log p_s(y) - gamma * T^2 * sum_{c != y} r_t(c) log r_s(c)``, the soft part of the paper's NKD loss.

    p are the probabilities at temperature 1 and r those of the classes other than the true one y, at T, normalised to
    sum to 1. The paper's loss also has the cross entropy with the labels, which is the hard term here.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient (some copies let one through p_t(y)).
        target: see `kdexp.contracts.Kind`. The mean is over what is labelled, and 0 when nothing is; a mixed target
            counts as its largest share.
        temperature: T > 0 of the second part; published: 1.
        gamma: published: 1.5.
        kind: what the logits mean; a sigmoid has two classes.

    Returns:
        Scalar >= 0. Equal logits are not its minimum: the first part always asks for more of the true class.

    Warns:
        UserWarning: once in a process, two classes: what is left without the true one is a single class, and the
            second part is 0.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    check_scalars(gamma=gamma)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    if student.shape[1] == 2:
        warn_once("loss=nkd: the non-target term has no gradient with 2 classes")
    classes = class_numbers(target, student, kind)
    p_teacher, log_p_student = (of_class(p, classes) for p in (teacher.softmax(1), student.log_softmax(1)))
    r_teacher = (of_other_classes(teacher, classes) / temperature).softmax(1)
    log_r_student = (of_other_classes(student, classes) / temperature).log_softmax(1)
    non_target = -(r_teacher * log_r_student).sum(1)
    return labelled_mean(gamma * temperature**2 * non_target - p_teacher * log_p_student, classes)


class NKD(nn.Module):
    """`nkd` as a module.

    Args:
        temperature: T > 0.
        gamma: see `nkd`.
        kind: see `nkd`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float = 1.0, gamma: float = 1.5, kind: Kind = "multiclass") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._gamma = gamma
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `nkd`."""
        return nkd(student_logits, teacher_logits, target, self.temperature, gamma=self._gamma, kind=self._kind)
