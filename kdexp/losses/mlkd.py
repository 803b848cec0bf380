"""The soft terms of Jin, Wang and Lin, "Multi-Level Logit Distillation" (CVPR 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor, einsum, nn

from kdexp.contracts import Kind
from kdexp.losses.all_gather import gather
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import check_temperature, outcomes


def mlkd(
    student_logits: Tensor, teacher_logits: Tensor, temperatures: Sequence[float], *, kind: Kind = "multiclass"
) -> Tensor:
    """The sum over temperatures T of ``T^2 KL + ||P P' - Q Q'||^2 / N + ||P' P - Q' Q||^2 / C``.

    Instance, batch and class level. P (teacher) and Q (student) are the (N, C) probabilities at T, and the norms are
    Frobenius norms: P P' compares the samples of the batch with each other, P' P the classes.

    The published numbers come from 480 epochs with two views of each image, one of them with strong augmentation, and
    cannot be compared with those of other methods; this is the loss for one view. In the public code the masks that
    should choose uncertain samples and classes multiply a scalar, so they halve it and choose nothing, and two
    of the five strong-view terms are computed on the weak view.

    Under DDP the batch is that of all processes. Dense logits have their own matrices at each position.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperatures: each > 0; published: 4, 2, 3, 5, 6.
        kind: what the logits mean; a sigmoid has two classes.

    Returns:
        Scalar >= 0; 0 when student and teacher are equal.

    Raises:
        ValueError: a temperature <= 0, or shapes that do not fit.
    """
    for temperature in temperatures:
        check_temperature(temperature)
    # A dimension for positions, of size 1 where the logits are not dense.
    student, teacher = (gather(x.unsqueeze(-1).flatten(2)) for x in outcomes(student_logits, teacher_logits, kind))
    return sum((_levels(student, teacher, t) for t in temperatures), student.new_zeros(()))


def _levels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_q, log_p = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    q, p = log_q.exp(), log_p.exp()
    samples, classes, positions = p.shape
    with torch.autocast(p.device.type, enabled=False):  # it would do products in half precision
        batch = (einsum("ncs,mcs->nms", p, p) - einsum("ncs,mcs->nms", q, q)).square().sum() / samples
        across = (einsum("ncs,nds->cds", p, p) - einsum("ncs,nds->cds", q, q)).square().sum() / classes
    return temperature**2 * kl(log_p, log_q).mean() + (batch + across) / positions


class MLKD(nn.Module):
    """`mlkd` as a module.

    Args:
        temperature: the first T.
        other_temperatures: the others.
        kind: see `mlkd`.

    Attributes:
        temperature: the current first T; a schedule may set it.
        compares_samples: rows are compared with each other, so that its memory grows with the square of their number.

    Raises:
        ValueError: temperature <= 0.
    """

    compares_samples = True

    def __init__(
        self,
        temperature: float = 4.0,
        other_temperatures: Sequence[float] = (2.0, 3.0, 5.0, 6.0),
        kind: Kind = "multiclass",
    ) -> None:
        super().__init__()
        for each in (temperature, *other_temperatures):
            check_temperature(each)
        self.temperature = temperature
        self._other_temperatures = tuple(other_temperatures)
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `mlkd`. The target is not used."""
        temperatures = (self.temperature, *self._other_temperatures)
        return mlkd(student_logits, teacher_logits, temperatures, kind=self._kind)
