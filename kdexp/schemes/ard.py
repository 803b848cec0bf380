"""Adversarially Robust Distillation."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kdexp.contracts import Batch
from kdexp.schemes.adversarial import AdversarialDistiller, Terms
from kdexp.schemes.robust_distillation import RobustDistillation, RobustDistiller


@dataclass(frozen=True, kw_only=True)
class ARD(RobustDistillation):
    """The attacked student learns the teacher's logits for the clean samples: see `ARDDistiller`."""

    def kind(self) -> Callable[..., AdversarialDistiller]:
        """See `ARDDistiller`."""
        return ARDDistiller


class ARDDistiller(RobustDistiller):
    """``alpha * CE(s(x), y) + (1 - alpha) * L_soft(s(x'), t(x))``, with x' that raises ``CE(s(x'), y)``.

    Adversarially Robust Distillation: Goldblum et al. 2020 (arXiv 1905.09747), whose alpha is 1 - alpha here, and whose
    L_soft is T^2 times KL. (The authors' code divides KL by the number of classes as well.)
    """

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        moved = self.attacked(self.wrong(batch.target), batch)
        teacher = self.teacher_logits(batch.inputs)
        clean, attacked = self.student(batch.inputs), self.student(moved)
        return clean, self.distilled_terms(clean, batch, lambda: self.soft_value(attacked, teacher, batch))
