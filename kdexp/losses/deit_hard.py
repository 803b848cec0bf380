"""Hard labels from the teacher: Touvron et al., "Training data-efficient image transformers" (arXiv 2012.12877)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.outcomes import outcomes


def deit_hard(student_logits: Tensor, teacher_logits: Tensor, *, kind: Kind = "multiclass") -> Tensor:
    """Cross entropy with the teacher's decision as the label, equation 3: ``-log p_s(argmax_c z_t(c))``.

    DeiT trains a second head (the distillation token's) on it; here the student's one head gets both terms. Labels
    are not needed. (DeiT's soft variant in the public code divides by the number of classes as well: that is not KD.)

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        kind: what the logits mean; a sigmoid decides at 0.

    Returns:
        Scalar >= 0, in nats, mean over samples and positions; 0 only where the student is certain.

    Raises:
        ValueError: shapes that do not fit.
    """
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    return F.cross_entropy(student, teacher.argmax(1))


class DeiTHard(nn.Module):
    """`deit_hard` as a module.

    Args:
        kind: see `deit_hard`.
    """

    def __init__(self, kind: Kind = "multiclass") -> None:
        super().__init__()
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `deit_hard`. The target is not used."""
        return deit_hard(student_logits, teacher_logits, kind=self._kind)
