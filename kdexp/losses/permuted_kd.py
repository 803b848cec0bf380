"""A control: a teacher that is as sure of the truth as it is, and says nothing sensible of the other classes."""

import torch
from torch import Tensor, nn

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.kd import KD
from kdexp.losses.outcomes import class_numbers, of_other_classes
from kdexp.losses.shapes import check_shapes


def permuted(logits: Tensor, target: Tensor) -> Tensor:
    """The logits with those of all classes but the true one in an order of chance, another for each sample.

    The probability of the true class, the entropy and the set of the others' probabilities stay; which class is like
    which is lost. After Furlanello et al. 2018 (arXiv 1805.04770, "dark knowledge with permuted predictions"), who keep
    the teacher's largest output in its place; here the true class is kept, and the largest where there is no label.

    Args:
        logits: (N, C) or dense (N, C, ...), C >= 3.
        target: (N, ...) int64 class numbers or ``UNLABELED``; a mixed target, float (N, C, ...), counts as its largest
            share.

    Returns:
        The same shape. The order is drawn from torch's own generator, which a training seeds in every epoch.

    Raises:
        ValueError: fewer than three classes, or shapes that do not fit.
    """
    check_shapes("N C ...", logits=logits)
    count = logits.shape[1]
    if count < 3:
        raise ValueError(f"permuted_kd needs at least 3 classes, got {count}")
    classes = class_numbers(target, logits, "multiclass")
    classes = torch.where(classes == UNLABELED, logits.argmax(1), classes)
    others = of_other_classes(logits, classes)
    shuffled = others.gather(1, torch.rand_like(others).argsort(1))
    shape = (1, -1, *[1] * (logits.ndim - 2))
    numbers = torch.arange(count, device=logits.device).view(shape).expand(logits.shape)
    return logits.scatter(1, of_other_classes(numbers, classes), shuffled)


class PermutedKD(nn.Module):
    """KD from a teacher whose logits are `permuted`.

    Args:
        temperature: T > 0.
        scale_by_temperature: see `kdexp.losses.kd.kd`.
        kind: what the logits mean; multiclass alone has classes to permute.

    Raises:
        ValueError: temperature <= 0, or another kind.
    """

    def __init__(self, temperature: float, scale_by_temperature: bool = True, kind: Kind = "multiclass") -> None:
        super().__init__()
        if kind != "multiclass":
            raise ValueError(f"permuted_kd needs dataset.kind to be multiclass, got {kind}")
        self._kd = KD(temperature, scale_by_temperature)

    @property
    def temperature(self) -> float:
        """The current T; a schedule may set it."""
        return self._kd.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._kd.temperature = value

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `permuted` and `kdexp.losses.kd.kd`."""
        check_shapes("N C ..., N C ...", student_logits=student_logits, teacher_logits=teacher_logits)
        teacher = permuted(at_least_fp32(teacher_logits.detach()), target)
        loss: Tensor = self._kd(student_logits, teacher, target)
        return loss
