"""KD at a temperature for each sample, at which all of the teacher's soft labels are equally uncertain."""

import math

import torch
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import outcomes
from kdexp.losses.shapes import check_scalars, check_shapes

# The temperature is looked for between 2^-20 and 2^10 times the difference of a sample's largest and smallest logit.
_LOWEST, _HIGHEST = -20.0, 10.0
_HALVINGS = 24  # of that interval: to the last bits of a float32


def entropy_temperature(logits: Tensor, entropy: float) -> Tensor:
    """The T at which ``softmax(z / T)`` has a set entropy, for each sample; by bisection.

    The entropy grows with T, from 0 (the logarithm of how many logits are the largest) to ln C. Multiplying a sample's
    logits multiplies its T.

    Args:
        logits: (N, C) or dense (N, C, ...), C >= 2.
        entropy: as a fraction of ln C, in (0, 1).

    Returns:
        (N, 1, ...) > 0, at least float32, without a gradient. Where the largest logits are (all but) equal, so that no
        T has as little entropy, it is 2^-20 of the difference of largest and smallest, or 2^-20 where all are equal.

    Raises:
        ValueError: logits without dimension 1.
    """
    check_shapes("N C ...", logits=logits)
    check_scalars(entropy=entropy)
    below = at_least_fp32(logits.detach())
    below = below - below.amax(1, keepdim=True)
    spread = -below.amin(1, keepdim=True)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    below, wanted = below / spread, entropy * math.log(logits.shape[1])
    low, high = torch.full_like(spread, _LOWEST), torch.full_like(spread, _HIGHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        log_p = (below * torch.exp2(-middle)).log_softmax(1)
        is_less = -(log_p.exp() * log_p).sum(1, keepdim=True) < wanted
        low, high = torch.where(is_less, middle, low), torch.where(is_less, high, middle)
    return spread * torch.exp2((low + high) / 2)


def entropy_kd(
    student_logits: Tensor, teacher_logits: Tensor, *, entropy: float = 0.5, kind: Kind = "multiclass"
) -> Tensor:
    """``T_i^2 * KL(softmax(z_t / T_i) || softmax(z_s / T_i))``, T_i such that the sample's label has a set entropy.

    A sample of which the teacher is certain is softened more than one that it doubts, so that all say as much of the
    other classes. The student gets the same T_i, and has its minimum where its logits are the teacher's (but for a
    constant). T_i^2 keeps what KD's T^2 keeps: what a difference of the two networks' logits costs does not depend on
    T_i, so that a sample does not count less because it is softened.

    A sample whose largest logits are equal has no T_i (see `entropy_temperature`), and counts for next to nothing.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient, nor does T_i.
        entropy: of the teacher's labels, as a fraction of its largest, ln C; in [0.01, 0.99].
        kind: what the logits mean; a sigmoid has two classes, and each label a temperature of its own.

    Returns:
        Scalar >= 0, in nats (times T_i^2), mean over samples and positions; 0 when student and teacher are equal.

    Raises:
        ValueError: entropy out of its range, or shapes that do not fit.
    """
    check_scalars(entropy=entropy)
    _check_entropy("entropy", entropy)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    temperature = entropy_temperature(teacher, entropy)
    divergence = kl((teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1))
    return (temperature.squeeze(1) ** 2 * divergence).mean()


def _check_entropy(name: str, entropy: float) -> None:
    # Beyond, labels are those of the hard term, or all alike: float32 does not tell their temperatures.
    if not 0.01 <= entropy <= 0.99:
        raise ValueError(f"{name} must be in [0.01, 0.99], a fraction of ln C, got {entropy}")


class EntropyKD(nn.Module):
    """`entropy_kd` as a module.

    Args:
        entropy: see `entropy_kd`.
        kind: see `entropy_kd`.

    Raises:
        ValueError: entropy out of its range.
    """

    def __init__(self, entropy: float = 0.5, kind: Kind = "multiclass") -> None:
        super().__init__()
        _check_entropy("loss.entropy", entropy)
        self._entropy = entropy
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `entropy_kd`. The target is not used."""
        return entropy_kd(student_logits, teacher_logits, entropy=self._entropy, kind=self._kind)
