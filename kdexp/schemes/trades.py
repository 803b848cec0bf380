"""The student alone, on clean samples, not to be moved by an attack."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdexp.config.require import is_number, require
from kdexp.contracts import Batch, Outputs
from kdexp.data.settings import Dataset
from kdexp.robustness.attacks import in_eval_mode
from kdexp.schemes.adversarial import AdversarialDistiller, AdversarialScheme, Terms, divergence
from kdexp.training.distiller import OptimizerFactory
from kdexp.training.terms import weighted_term


@dataclass(frozen=True, kw_only=True)
class TRADES(AdversarialScheme):
    """A student that an attack does not move: see `TRADESDistiller`.

    Attributes:
        beta: weight of what an attack changes, >= 0.
    """

    beta: float

    needs: ClassVar[str] = "none"

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check beta and the attack."""
        super().check(setting, dataset)
        require(is_number(self.beta) and self.beta >= 0, f"{setting}.beta", "must be >= 0", self.beta)

    def kind(self) -> Callable[..., AdversarialDistiller]:
        """See `TRADESDistiller`."""
        return partial(TRADESDistiller, beta=self.beta)


class TRADESDistiller(AdversarialDistiller):
    """``CE(s(x), y) + beta * KL(s(x) || s(x'))``, with x' that raises the second: Zhang et al. 2019 (arXiv 1901.08573).

    beta is their 1 / lambda. There is no teacher.

    Args:
        student: see `AdversarialDistiller`.
        beta: weight of the second term, >= 0; published: 6.
        settings: see `AdversarialDistiller`.
    """

    def __init__(self, student: nn.Module, optimizer: OptimizerFactory, *, beta: float, **settings: Any) -> None:
        super().__init__(student, optimizer, **settings)
        self._beta = beta

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        with in_eval_mode(self.student), torch.no_grad():
            fixed = self.student(batch.inputs)
        moved = self.attacked(lambda inputs: divergence(fixed, self.student(inputs), self.task.kind).sum(), batch)
        clean, attacked = self.student(batch.inputs), self.student(moved)
        return clean, {
            "hard": weighted_term(1.0, self.task.hard, Outputs(clean), batch),
            "robust": weighted_term(self._beta, lambda: divergence(clean, attacked, self.task.kind).mean()),
        }
