"""The soft term of Li et al., "Curriculum Temperature for Knowledge Distillation" (AAAI 2023, arXiv 2211.16231)."""

import math

import torch
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import outcomes
from kdexp.losses.shapes import check_scalars


def ctkd(student_logits: Tensor, teacher_logits: Tensor, temperature: Tensor, *, kind: Kind = "multiclass") -> Tensor:
    """``T^2 * KL(softmax(z_t / T) || softmax(z_s / T))`` as in `kdexp.losses.kd`, with a gradient for T as well.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: scalar, > 0.
        kind: what the logits mean.

    Returns:
        Scalar >= 0; 0 when student and teacher are equal.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_scalars(temperature=temperature)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    return temperature**2 * kl((teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)).mean()


class CTKD(nn.Module):
    """`ctkd` with a temperature that learns to make the student's task harder: ``T = t_start + t_span * sigmoid(w)``.

    The parameter w (the paper's global temperature; one number, 1 at first, so T starts at 15.6) is trained by the
    optimizer of the student, but its gradient is multiplied by ``-lambda``: it climbs where the student descends.
    lambda rises from 0 to 1 on half a cosine wave over the epochs, so that the task is easy at first.

    The authors' option for t_span is named t_end, but T reaches t_start + t_span; and the script that combines this
    with logit standardisation has its flag inverted. T must be in an optimizer: here it is with the student's
    parameters. The paper's instance-wise variant, where a network makes a T for each sample, is not built.

    Args:
        t_start: published: 1.
        t_span: published: 20.
        ramp_epochs: over so many epochs lambda rises to 1; published: 10.
        kind: what the logits mean.

    Raises:
        ValueError: t_start <= 0, t_span < 0 or ramp_epochs < 1.
    """

    def __init__(
        self,
        t_start: float = 1.0,
        t_span: float = 20.0,
        ramp_epochs: int = 10,
        kind: Kind = "multiclass",
    ) -> None:
        super().__init__()
        for name, value, rule, holds in (
            ("t_start", t_start, "> 0", t_start > 0),
            ("t_span", t_span, ">= 0", t_span >= 0),
            ("ramp_epochs", ramp_epochs, ">= 1", ramp_epochs >= 1),
        ):
            if not holds:
                raise ValueError(f"loss.{name} must be {rule}, got {value}")
        self._t_start, self._t_span = t_start, t_span
        self._ramp_epochs = ramp_epochs
        self._kind: Kind = kind
        self._lambda = 1.0
        self.raw_temperature = nn.Parameter(torch.ones(()))

    @property
    def learned_temperature(self) -> float:
        """The current T; the top-level temperature has no part in this loss."""
        return float(self._temperature_of(self.raw_temperature.detach()))

    def on_epoch(self, epoch: int) -> None:
        """Set lambda; epochs count from 0 here, from 1 in the formula. Without a call of this it is 1."""
        progress = min((epoch + 1) / self._ramp_epochs, 1.0)
        self._lambda = (1 - math.cos(math.pi * progress)) / 2

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `ctkd`. The target is not used."""
        fixed = self.raw_temperature.detach()
        reversed_gradient = fixed + self._lambda * (fixed - self.raw_temperature)
        temperature = self._temperature_of(reversed_gradient)
        return ctkd(student_logits, teacher_logits, temperature, kind=self._kind)

    def _temperature_of(self, raw: Tensor) -> Tensor:
        return self._t_start + self._t_span * raw.sigmoid()
