"""The soft term of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Task
from kdexp.losses.precision import at_least_fp32


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    scale_by_temperature: bool = True,
    task: Task = "multiclass",
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
        task: what the logits mean.

    Returns:
        Scalar >= 0, in nats (times T^2).

    Raises:
        ValueError: temperature <= 0, or shapes that differ.
    """
    _check_temperature(temperature)
    if student_logits.shape != teacher_logits.shape:
        student, teacher = tuple(student_logits.shape), tuple(teacher_logits.shape)
        raise ValueError(f"teacher logits must have the shape of the student's, {student}, got {teacher}")
    student_log_p = _log_probabilities(student_logits, temperature, task)
    teacher_log_p = _log_probabilities(teacher_logits.detach(), temperature, task)
    distributions = student_log_p.numel() // student_log_p.shape[1]
    divergence = F.kl_div(student_log_p, teacher_log_p, reduction="sum", log_target=True) / distributions
    return divergence * temperature**2 if scale_by_temperature else divergence


def _log_probabilities(logits: Tensor, temperature: float, task: Task) -> Tensor:
    """Log-probabilities of the softened outcomes, which lie along dimension 1."""
    soft = at_least_fp32(logits) / temperature
    return soft.log_softmax(1) if task == "multiclass" else torch.stack((F.logsigmoid(soft), F.logsigmoid(-soft)), 1)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")


class KD(nn.Module):
    """`kd` as a module.

    Args:
        temperature: T > 0.
        scale_by_temperature: see `kd`.
        task: see `kd`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(self, temperature: float, scale_by_temperature: bool = True, task: Task = "multiclass") -> None:
        super().__init__()
        _check_temperature(temperature)
        self.temperature = temperature
        self._scale_by_temperature = scale_by_temperature
        self._task: Task = task

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `kd`. The target is not used."""
        return kd(
            student_logits,
            teacher_logits,
            self.temperature,
            scale_by_temperature=self._scale_by_temperature,
            task=self._task,
        )
