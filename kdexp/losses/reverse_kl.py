"""KL in the other direction, as in Gu et al., "MiniLLM" (ICLR 2024, arXiv 2306.08543)."""

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, outcomes


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, *, kind: Kind = "multiclass"
) -> Tensor:
    """``T^2 * KL(softmax(z_s / T) || softmax(z_t / T))``: the student's distribution comes first.

    It punishes probability where the teacher has none, and lets the student leave out modes of the teacher that it
    cannot fit; KL in the direction of `kdexp.losses.kd` does the opposite.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: T > 0.
        kind: what the logits mean.

    Returns:
        Scalar >= 0, mean over samples and positions; 0 when student and teacher are equal.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    return temperature**2 * kl((student / temperature).log_softmax(1), (teacher / temperature).log_softmax(1)).mean()


class ReverseKL(nn.Module):
    """`reverse_kl` as a module.

    Args:
        temperature: T > 0.
        kind: see `reverse_kl`.

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
        """Scalar; see `reverse_kl`. The target is not used."""
        return reverse_kl(student_logits, teacher_logits, self.temperature, kind=self._kind)
