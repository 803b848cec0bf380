"""Soft terms of Zi et al., "Revisiting Adversarial Robustness Distillation" (RSLAD, ICCV 2021, arXiv 2108.07969)."""

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kd import kd
from kdexp.losses.shapes import check_logits, check_scalars


def rslad(
    adversarial_logits: Tensor,
    clean_logits: Tensor,
    teacher_logits: Tensor,
    *,
    adversarial_weight: float = 5 / 6,
    kind: Kind = "multiclass",
) -> Tensor:
    """``w * KL(t(x) || s(x_adv)) + (1 - w) * KL(t(x) || s(x))`` at temperature 1: the teacher sees clean inputs only.

    There is no hard label in the paper: use it with alpha = 0. The adversarial inputs are made by climbing
    ``KL(t(x) || s(x_adv))`` itself; that is the training step's part, not the loss's. The authors' code divides by
    the number of classes as well (and multiplies by 10 on CIFAR-100); here the sum over classes is taken.

    Args:
        adversarial_logits: (N, C) or dense (N, C, ...), the student's for the attacked inputs.
        clean_logits: the same shape, the student's for the clean ones.
        teacher_logits: the same shape, the teacher's for the clean ones; gets no gradient.
        adversarial_weight: w in [0, 1]; published: 5/6.
        kind: what the logits mean.

    Returns:
        Scalar >= 0; 0 when all three are equal.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_logits(kind, adversarial_logits=adversarial_logits, clean_logits=clean_logits, teacher_logits=teacher_logits)
    check_scalars(adversarial_weight=adversarial_weight)
    attacked, clean = (kd(logits, teacher_logits, 1.0, kind=kind) for logits in (adversarial_logits, clean_logits))
    return adversarial_weight * attacked + (1 - adversarial_weight) * clean


class RSLAD(nn.Module):
    """`rslad` of one set of the student's logits, which stand for both of its terms: KD at temperature 1.

    Args:
        kind: see `rslad`.
    """

    def __init__(self, kind: Kind = "multiclass") -> None:
        super().__init__()
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `rslad`. The target is not used."""
        check_logits(self._kind, student_logits=student_logits, teacher_logits=teacher_logits)
        return rslad(student_logits, student_logits, teacher_logits, kind=self._kind)
