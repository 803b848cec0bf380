"""Teacher-free KD: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing" (arXiv 1909.11723)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, class_numbers, labelled_mean, outcomes
from kdexp.losses.shapes import check_scalars


def tf_kd(
    student_logits: Tensor,
    target: Tensor,
    temperature: float,
    *,
    correct: float = 0.99,
    kind: Kind = "multiclass",
) -> Tensor:
    """``KL(softmax(u / T) || softmax(z_s))`` with a hand-made teacher u: correct for the true class, the rest even.

    This is Tf-KD_reg; a control, as the teacher knows nothing but the label. (Tf-KD_self is ordinary KD from a teacher
    of the student's own kind.)

    As in the authors' code, u is a vector of probabilities that is softened as if it were logits: at T = 20 and
    C = 100 the true class gets 0.0105 and each other 0.0100, so this is nearly the pull towards uniform outputs; and
    the student is not softened. That code's mean over classes times 100 is the sum over CIFAR-100's classes, which is
    taken here for every C.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        target: see `kdexp.contracts.Kind`. The mean is over what is labelled, and 0 when nothing is; a mixed target
            counts as its largest share.
        temperature: T > 0; published: 20 (resnet18, CIFAR-100).
        correct: probability that u gives the true class, in (0, 1); published: 0.99.
        kind: what the logits mean; a sigmoid has two classes.

    Returns:
        Scalar >= 0, in nats.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    check_scalars(correct=correct)
    student, _ = outcomes(student_logits, student_logits, kind)
    classes = class_numbers(target, student, kind)
    count = student.shape[1]
    one_hot = F.one_hot(classes.clamp(min=0), count).movedim(-1, 1).to(student.dtype)
    even = (1 - correct) / (count - 1)
    virtual = even + (correct - even) * one_hot
    return labelled_mean(kl((virtual / temperature).log_softmax(1), student.log_softmax(1)), classes)


class TfKD(nn.Module):
    """`tf_kd` as a module.

    Args:
        temperature: T > 0.
        correct: see `tf_kd`.
        kind: see `tf_kd`.

    Attributes:
        needs_teacher: False: kdexp builds no teacher for it.
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0, or correct outside (0, 1).
    """

    needs_teacher = False

    def __init__(self, temperature: float = 20.0, correct: float = 0.99, kind: Kind = "multiclass") -> None:
        super().__init__()
        check_temperature(temperature)
        if not 0 < correct < 1:
            raise ValueError(f"loss.correct must be in (0, 1), got {correct}")
        self.temperature = temperature
        self._correct = correct
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `tf_kd`. The teacher's logits are not used."""
        return tf_kd(student_logits, target, self.temperature, correct=self._correct, kind=self._kind)
