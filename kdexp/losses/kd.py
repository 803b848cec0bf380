"""The soft term of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531)."""

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.outcomes import check_temperature, outcomes


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    scale_by_temperature: bool = True,
    kind: Kind = "multiclass",
) -> Tensor:
    """``T^2 * KL(softmax(z_teacher / T) || softmax(z_student / T))``, in log space and at least float32.

    Summed over classes, mean over samples (and over positions of dense logits). In sigmoid tasks every label is a
    distribution over two outcomes, and the mean is over samples and labels, like that of the hard term.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: T > 0.
        scale_by_temperature: multiply by T^2, which keeps the size of the gradient when T changes (section 2 of the
            paper); False leaves it out.
        kind: what the logits mean.

    Returns:
        Scalar >= 0, in nats (times T^2).

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    student_log_p, teacher_log_p = (
        (logits / temperature).log_softmax(1) for logits in outcomes(student_logits, teacher_logits, kind)
    )
    distributions = student_log_p.numel() // student_log_p.shape[1]
    # Not F.kl_div, which is bitwise the same, but which vmap has no rule for.
    divergence = (teacher_log_p.exp() * (teacher_log_p - student_log_p)).sum() / distributions
    return divergence * temperature**2 if scale_by_temperature else divergence


class KD(nn.Module):
    """`kd` as a module.

    Args:
        temperature: T > 0.
        scale_by_temperature: see `kd`.
        kind: see `kd`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float, scale_by_temperature: bool = True, kind: Kind = "multiclass") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._scale_by_temperature = scale_by_temperature
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `kd`. The target is not used."""
        return kd(
            student_logits,
            teacher_logits,
            self.temperature,
            scale_by_temperature=self._scale_by_temperature,
            kind=self._kind,
        )
