"""Adaptive Adversarial Distillation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from kdexp.config.require import Values, require
from kdexp.contracts import Batch
from kdexp.schemes.adversarial import AdversarialDistiller, Terms, divergence
from kdexp.schemes.rslad import RSLAD, RSLADDistiller


@dataclass(frozen=True, kw_only=True)
class AdaAD(RSLAD):
    """RSLAD's loss, with the teacher's logits for the attacked samples, too: see `AdaADDistiller`."""

    def check_teachers(self, teachers: Mapping[str, Values], loss: str, cache: str) -> None:
        """Check that the attack can go through each teacher, too."""
        super().check_teachers(teachers, loss, cache)
        for setting, member in teachers.items():
            rule = "must be null with scheme=adaad, which takes a gradient through its teacher"
            require("file" not in member, f"{setting}.file", rule, member.get("file"))

    def kind(self) -> Callable[..., AdversarialDistiller]:
        """See `AdaADDistiller`."""
        return partial(AdaADDistiller, adversarial_weight=self.adversarial_weight)


class AdaADDistiller(RSLADDistiller):
    """``w * L_soft(s(x'), t(x')) + (1 - w) * L_soft(s(x), t(x))``, with x' that raises ``KL(t(x') || s(x'))``.

    Adaptive Adversarial Distillation: Huang et al., "Boosting Accuracy and Robustness of Student Models via Adaptive
    Adversarial Distillation" (CVPR 2023): the teacher sees what the student sees, and the attack goes through
    both. It costs a pass through the teacher, there and back, in each step of the attack.

    Args:
        student: see `AdversarialDistiller`.
        adversarial_weight: w in [0, 1]; published: 1.
        settings: see `AdversarialDistiller`.
    """

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        teacher = self.teacher
        assert teacher is not None
        moved = self.attacked(
            lambda inputs: divergence(teacher.differentiable(inputs), self.student(inputs), self.task.kind).sum(), batch
        )
        return self.terms_of_both(batch, moved, self.teacher_logits(batch.inputs), self.teacher_logits(moved))
