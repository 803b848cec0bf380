"""The student alone, on adversarial examples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdexp.contracts import Batch, Outputs
from kdexp.schemes.adversarial import AdversarialDistiller, AdversarialScheme, Terms
from kdexp.training.terms import weighted_term


@dataclass(frozen=True, kw_only=True)
class PGDTraining(AdversarialScheme):
    """Training on adversarial examples without a teacher: see `PGDDistiller`."""

    needs: ClassVar[str] = "none"

    def kind(self) -> Callable[..., AdversarialDistiller]:
        """See `PGDDistiller`."""
        return PGDDistiller


class PGDDistiller(AdversarialDistiller):
    """``CE(s(x'), y)``, with x' that raises it: Madry et al. 2018 (arXiv 1706.06083). There is no teacher."""

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the attacked batch, and the terms; see the class."""
        logits = self.student(self.attacked(self.wrong(batch.target), batch))
        return logits, {"hard": weighted_term(1.0, self.task.hard, Outputs(logits), batch)}
