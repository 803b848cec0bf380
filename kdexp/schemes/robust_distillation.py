"""What schemes share in which a teacher teaches on adversarial examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from kdexp.config.require import Values, require
from kdexp.contracts import Batch, Outputs
from kdexp.schemes.adversarial import AdversarialDistiller, AdversarialScheme, Terms
from kdexp.training.terms import weighted_term


@dataclass(frozen=True, kw_only=True)
class RobustDistillation(AdversarialScheme):
    """One that learns from a teacher."""

    def check_teachers(self, teachers: Mapping[str, Values], loss: str, cache: str) -> None:
        """Check that there is a teacher whose outputs are not cached: attacked samples are always new."""
        rule = f"must be one that needs a teacher with scheme={self.name}"
        require(bool(teachers), "loss", rule, loss)
        require(cache == "none", "teacher.cache", f"must be none with scheme={self.name}", cache)


class RobustDistiller(AdversarialDistiller):
    """What those with a teacher share."""

    def teacher_logits(self, inputs: Tensor) -> Tensor:
        """The teacher's logits, (N, C)."""
        assert self.teacher is not None
        return self.teacher(inputs, self.temperature).logits

    def soft_value(self, logits: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The soft loss of the student's and the teacher's logits; a scalar."""
        assert self.soft_loss is not None
        return self.task.soft(self.soft_loss, Outputs(logits), Outputs(teacher), batch)

    def distilled_terms(self, clean: Tensor, batch: Batch, soft: Callable[[], Tensor]) -> Terms:
        """``alpha * CE(clean, target) + (1 - alpha) * soft()``."""
        return {
            "hard": weighted_term(self.alpha, self.task.hard, Outputs(clean), batch),
            "soft": weighted_term((1 - self.alpha) * self.weights.soft, soft),
        }
