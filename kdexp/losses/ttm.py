"""The soft terms of Zheng and Yang, "Transformed Teacher Matching" (ICLR 2024, arXiv 2402.11148): TTM and WTTM."""

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, outcomes


def ttm(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    weighted: bool = False,
    kind: Kind = "multiclass",
) -> Tensor:
    """``KL(softmax(z_t / T) || softmax(z_s))``: only the teacher is softened, and there is no T^2.

    The softened teacher is its distribution p raised to the power gamma = 1 / T and normalised. The weighted form
    (WTTM) multiplies each sample's term by ``sum_c p_c^gamma``, the normaliser: between 1, where the teacher is
    certain, and C^(1 - gamma), where it is uniform.

    Student equal to teacher is not the minimum (unless T = 1); the student that has the teacher's logits divided by T
    is, with the value 0.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: T > 0; published: 10 for vgg13 -> vgg8 (gamma 0.1), and for WTTM beside CRD 5 (gamma 0.2).
        weighted: WTTM.
        kind: what the logits mean.

    Returns:
        Scalar >= 0, mean over samples and positions.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    powers = teacher.log_softmax(1) / temperature
    divergence = kl(powers.log_softmax(1), student.log_softmax(1))
    return (powers.logsumexp(1).exp() * divergence if weighted else divergence).mean()


class TTM(nn.Module):
    """`ttm` as a module.

    Args:
        temperature: T > 0, of the teacher alone.
        weighted: see `ttm`.
        kind: see `ttm`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float = 10.0, weighted: bool = False, kind: Kind = "multiclass") -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._weighted = weighted
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `ttm`. The target is not used."""
        return ttm(student_logits, teacher_logits, self.temperature, weighted=self._weighted, kind=self._kind)
