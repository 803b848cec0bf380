"""Sun et al., "Logit Standardization in Knowledge Distillation" (CVPR 2024, arXiv 2403.01427)."""

from typing import cast

from torch import Tensor, nn

from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def standardize(logits: Tensor) -> Tensor:
    """``(z - mean(z)) / (std(z) + 1e-7)`` over the classes, with the unbiased std.

    What is left of the logits is their order and their ratios: the student is free to have another mean and scale
    than the teacher.

    Args:
        logits: (N, C) or dense (N, C, ...), C >= 3.

    Returns:
        The same shape, at least float32, mean 0 and standard deviation 1 over dimension 1; zeros where all logits are
        equal.

    Raises:
        ValueError: fewer than 3 classes: two standardised logits are 0.707 and -0.707 whatever they were, and have no
            gradient. (A sigmoid task has no classes to standardise over.) Logits without dimension 1.
    """
    check_shapes("N C ...", logits=logits)
    if logits.shape[1] < 3:
        raise ValueError(f"logit standardisation needs at least 3 classes, got {logits.shape[1]}")
    logits = at_least_fp32(logits)
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


class LogitStandardization(nn.Module):
    """Another soft loss, computed on standardised logits.

    The published settings (base temperature 2, ten times the inner loss's usual weight) belong together: standardised
    logits lie within about 3 of 0, so the softened distributions are flat and the loss is small.

    In the authors' code the option for the base temperature has no effect on DKD (it sets KD's), and DKD's non-target
    weight becomes 81 times 1, not 9 times 8.

    Args:
        loss: the soft loss that gets the standardised logits.
        kind: "multiclass"; the labels of the other kinds are not alternatives of each other.

    Attributes:
        loss: the soft loss.
        temperature: that loss's.
        learned_temperature: that loss's, or None if it learns none.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, loss: nn.Module, kind: str = "multiclass") -> None:
        super().__init__()
        if kind != "multiclass":
            raise ValueError(f"logit standardisation needs dataset.kind to be multiclass, got {kind}")
        self.loss = loss

    @property
    def temperature(self) -> float:
        """T of the inner loss."""
        return cast(float, self.loss.temperature)

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self.loss.temperature = temperature  # type: ignore[assignment]

    @property
    def learned_temperature(self) -> float | None:
        """T of an inner loss that learns it."""
        return cast("float | None", getattr(self.loss, "learned_temperature", None))

    def on_epoch(self, epoch: int) -> None:
        """Hand the number of the epoch to the inner loss, if that wants it."""
        on_epoch = getattr(self.loss, "on_epoch", None)
        if on_epoch is not None:
            on_epoch(epoch)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar: loss(standardised student logits, standardised teacher logits, target)."""
        check_shapes("N C ..., N C ...", student_logits=student_logits, teacher_logits=teacher_logits)
        loss: Tensor = self.loss(standardize(student_logits), standardize(teacher_logits), target)
        return loss
