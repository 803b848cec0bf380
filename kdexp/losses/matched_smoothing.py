"""A control: smoothed labels that are, on average, as uncertain as the teacher's soft labels."""

import torch
from torch import Tensor

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.kd import KD
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, class_numbers, labelled_mean, outcomes

# Halvings of the interval in which the smoothing is looked for: to 2^-24, the last bit of a float32.
_HALVINGS = 24


def matched_smoothing(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    *,
    scale_by_temperature: bool = True,
    kind: Kind = "multiclass",
) -> Tensor:
    """``T^2 * KL(smoothed y || softmax(z_s / T))``: KD with the teacher's soft labels replaced.

    The smoothing e is such that the labels, ``(1 - e) one_hot(y) + e / C``, have the mean entropy over the batch (at
    each position of dense logits) that the teacher's ``softmax(z_t / T)`` have. What KD gains over it is what the
    teacher knows beside the label: which classes a sample is like, and how sure one can be of it. (Yuan et al. 2020,
    arXiv 1909.11723, ask that question of label smoothing; its strength is free there.)

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient, and only its mean entropy counts.
        target: see `kdexp.contracts.Kind`. All means are over what is labelled; a mixed target counts as its largest
            share.
        temperature: T > 0.
        scale_by_temperature: see `kdexp.losses.kd.kd`.
        kind: what the logits mean; a sigmoid has two classes.

    Returns:
        Scalar >= 0, in nats (times T^2).

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    student, teacher = (logits / temperature for logits in outcomes(student_logits, teacher_logits, kind))
    classes, count = class_numbers(target, student, kind), student.shape[1]
    log_p = teacher.log_softmax(1)
    labelled = (classes != UNLABELED).to(log_p.dtype)
    uncertainty = -(log_p.exp() * log_p).sum(1) * labelled
    smoothing = _smoothing(uncertainty.sum(0) / labelled.sum(0).clamp(min=1), count)
    true = classes.clamp(min=0).unsqueeze(1)
    even = (smoothing / count).clamp(min=torch.finfo(student.dtype).tiny)
    labels = even.log().expand_as(student)
    labels = labels.scatter(1, true, (1 - smoothing + even).log().expand_as(true))
    divergence = labelled_mean(kl(labels, student.log_softmax(1)), classes)
    return divergence * temperature**2 if scale_by_temperature else divergence


def _smoothing(entropy: Tensor, count: int) -> Tensor:
    """The e in [0, 1] at which smoothed labels of so many classes have an entropy in nats; by bisection."""
    low, high = torch.zeros_like(entropy), torch.ones_like(entropy)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        others = middle / count
        own = 1 - middle + others
        reached = -own * own.log() - (count - 1) * torch.special.xlogy(others, others)
        low, high = torch.where(reached < entropy, middle, low), torch.where(reached < entropy, high, middle)
    return (low + high) / 2


class MatchedSmoothing(KD):
    """`matched_smoothing` as a module: KD with other labels.

    Args:
        temperature: T > 0.
        scale_by_temperature: see `matched_smoothing`.
        kind: see `matched_smoothing`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `matched_smoothing`."""
        return matched_smoothing(
            student_logits,
            teacher_logits,
            target,
            self.temperature,
            scale_by_temperature=self._scale_by_temperature,
            kind=self._kind,
        )
