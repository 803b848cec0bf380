"""The Jensen-Shannon divergence (Lin, IEEE Transactions on Information Theory 1991) as a soft term."""

import math

import torch
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, outcomes


def jsd(student_logits: Tensor, teacher_logits: Tensor, temperature: float, *, kind: Kind = "multiclass") -> Tensor:
    """``T^2 * (KL(p || m) + KL(q || m)) / 2`` with p teacher, q student, m = (p + q) / 2, all at temperature T.

    Symmetric and bounded: a sample on which the two are certain of different classes costs log 2 and no more, so a
    teacher's gross errors weigh less than in KL. Near p = q it is a quarter of KL. Used for distillation by Agarwal
    et al. (GKD, ICLR 2024, arXiv 2306.13649).

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: T > 0.
        kind: what the logits mean.

    Returns:
        Scalar in [0, T^2 * log 2], mean over samples and positions; 0 when student and teacher are equal.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    log_q, log_p = (student / temperature).log_softmax(1), (teacher / temperature).log_softmax(1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return temperature**2 * (kl(log_p, log_m) + kl(log_q, log_m)).mean() / 2


class JSD(nn.Module):
    """`jsd` as a module.

    Args:
        temperature: T > 0.
        kind: see `jsd`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float = 1.0, kind: Kind = "multiclass") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `jsd`. The target is not used."""
        return jsd(student_logits, teacher_logits, self.temperature, kind=self._kind)
