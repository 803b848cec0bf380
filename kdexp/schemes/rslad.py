"""Robust Soft Label Adversarial Distillation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from kdexp.config.require import is_number, require
from kdexp.contracts import Batch
from kdexp.data.settings import Dataset
from kdexp.schemes.adversarial import AdversarialDistiller, Terms
from kdexp.schemes.robust_distillation import RobustDistillation, RobustDistiller
from kdexp.training.distiller import OptimizerFactory


@dataclass(frozen=True, kw_only=True)
class RSLAD(RobustDistillation):
    """Soft labels in the attack and in the loss: see `RSLADDistiller`.

    Attributes:
        adversarial_weight: fraction of the attacked samples in the soft term, in [0, 1].
    """

    adversarial_weight: float

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the fraction and the attack."""
        super().check(setting, dataset)
        share = self.adversarial_weight
        holds = is_number(share) and 0 <= share <= 1
        require(holds, f"{setting}.adversarial_weight", "must be in [0, 1]", share)

    def kind(self) -> Callable[..., AdversarialDistiller]:
        """See `RSLADDistiller`."""
        return partial(RSLADDistiller, adversarial_weight=self.adversarial_weight)


class RSLADDistiller(RobustDistiller):
    """``w * L_soft(s(x'), t(x)) + (1 - w) * L_soft(s(x), t(x))``, with x' that raises ``L_soft(s(x'), t(x))``.

    Robust Soft Label Adversarial Distillation: Zi et al. 2021 (arXiv 2108.07969): no label is used (alpha 0), and
    L_soft is KL at T = 1 (loss=rslad). See `kdexp.losses.rslad`.

    Args:
        student: see `AdversarialDistiller`.
        adversarial_weight: w in [0, 1]; published: 5/6.
        settings: see `AdversarialDistiller`.
    """

    def __init__(
        self, student: nn.Module, optimizer: OptimizerFactory, *, adversarial_weight: float, **settings: Any
    ) -> None:
        super().__init__(student, optimizer, **settings)
        self._adversarial_weight = adversarial_weight

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        teacher = self.teacher_logits(batch.inputs)
        moved = self.attacked(lambda inputs: len(inputs) * self.soft_value(self.student(inputs), teacher, batch), batch)
        return self.terms_of_both(batch, moved, teacher, teacher)

    def terms_of_both(self, batch: Batch, moved: Tensor, teacher: Tensor, of_moved: Tensor) -> tuple[Tensor, Terms]:
        """The terms of clean and attacked inputs, with the teacher's logits for each."""
        clean, attacked = self.student(batch.inputs), self.student(moved)
        share = self._adversarial_weight

        def soft() -> Tensor:
            robust = self.soft_value(attacked, of_moved, batch)
            return share * robust + (1 - share) * self.soft_value(clean, teacher, batch)

        return clean, self.distilled_terms(clean, batch, soft)
