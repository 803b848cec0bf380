"""The power divergences (Cressie and Read, Journal of the Royal Statistical Society B 46, 1984) as a soft term."""

import math
from typing import Literal

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.outcomes import check_temperature, outcomes
from kdexp.losses.shapes import check_scalars

Direction = Literal["teacher_first", "student_first"]

_LARGEST = 20.0
"""Of power * log(p / q) that is raised to an exponential: beside e^20 a float32 has no digits for the other classes."""
_SMALLEST = 1e-12
"""Of a power that is told from 0."""


def power_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    power: float = 2 / 3,
    direction: Direction = "teacher_first",
    kind: Kind = "multiclass",
) -> Tensor:
    """``T^2 * sum_c p_c ((p_c / q_c)^power - 1) / (power (power + 1))``, with p the teacher, q the student, both at T.

    A family of divergences: power 0 is ``KL(p || q)``, that is `kdexp.losses.kd`, -1 is ``KL(q || p)``, 1 half of
    Pearson's chi squared, -1/2 four times the squared Hellinger distance ``1 - sum sqrt(p q)``. The larger the power,
    the more it costs to give a class much less than the teacher does. For large T all of them are the same.

    The other direction exchanges p and q, which is the same as the power -1 - power.

    Where (p / q)^power is above e^20, the divergence goes on as the tangent there: it stays finite, with a gradient.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: T > 0.
        power: any number, Cressie and Read's lambda; 2/3 is what they recommend (for tests of fit).
        direction: which distribution is p, the one that comes first.
        kind: what the logits mean; a sigmoid has two classes, and the mean is over labels, too.

    Returns:
        Scalar >= 0, mean over samples and positions; 0 when student and teacher are equal.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    check_scalars(power=power)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    log_q, log_p = (student / temperature).log_softmax(1), (teacher / temperature).log_softmax(1)
    if (direction == "student_first") != (power < -0.5):
        log_p, log_q = log_q, log_p
    power = max(power, -1 - power)  # by the exchange, at least -1/2: 0 is the one place that is left to divide by 0
    log_ratio = log_p - log_q
    excess = log_ratio if abs(power) < _SMALLEST else _expm1(power * log_ratio) / power
    return temperature**2 * (log_p.exp() * excess).sum(1).mean() / (power + 1)


def _expm1(x: Tensor) -> Tensor:
    return x.clamp(max=_LARGEST).expm1() + math.exp(_LARGEST) * (x - _LARGEST).clamp(min=0)


class PowerDivergence(nn.Module):
    """`power_divergence` as a module.

    Args:
        temperature: T > 0.
        power: see `power_divergence`.
        direction: see `power_divergence`.
        kind: see `power_divergence`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0, a power that is NaN or Inf, or another direction.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        power: float = 2 / 3,
        direction: Direction = "teacher_first",
        kind: Kind = "multiclass",
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        if not math.isfinite(power):
            raise ValueError(f"loss.power must be a finite number, got {power}")
        if direction not in ("teacher_first", "student_first"):
            raise ValueError(f"loss.direction must be teacher_first or student_first, got {direction}")
        self.temperature = temperature
        self._power, self._direction, self._kind = power, direction, kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `power_divergence`. The target is not used."""
        return power_divergence(
            student_logits,
            teacher_logits,
            self.temperature,
            power=self._power,
            direction=self._direction,
            kind=self._kind,
        )
