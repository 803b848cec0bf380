"""Introspective Adversarial Distillation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.config.require import is_number, require
from kdexp.contracts import UNLABELED, Batch
from kdexp.data.settings import Dataset
from kdexp.losses.outcomes import class_numbers, of_class, outcomes
from kdexp.schemes.adversarial import AdversarialDistiller, Terms, divergence
from kdexp.schemes.robust_distillation import RobustDistillation, RobustDistiller
from kdexp.training.distiller import OptimizerFactory


@dataclass(frozen=True, kw_only=True)
class IAD(RobustDistillation):
    """The student trusts itself where the teacher is wrong: see `IADDistiller`.

    Attributes:
        beta: exponent of the trust in the teacher, >= 0.
        begin: fraction of the epochs in which the teacher is always trusted, in [0, 1).
    """

    beta: float
    begin: float

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check beta, begin and the attack."""
        super().check(setting, dataset)
        beta, begin = self.beta, self.begin
        require(is_number(beta) and beta >= 0, f"{setting}.beta", "must be >= 0", beta)
        require(is_number(begin) and 0 <= begin < 1, f"{setting}.begin", "must be in [0, 1)", begin)

    def kind(self) -> Callable[..., AdversarialDistiller]:
        """See `IADDistiller`."""
        return partial(IADDistiller, beta=self.beta, begin=self.begin)


class IADDistiller(RobustDistiller):
    """ARD's soft term, and ``(1 - A) * KL(s(x) || s(x'))`` for where the teacher is not to be trusted.

    Introspective Adversarial Distillation: Zhu et al. 2022 (arXiv 2106.04928), IAD-I as in the authors' code:
    ``A = t(x')_y^beta``, the teacher's probability of the truth on what the student is attacked with. In the first
    epochs A is 1. Samples without a label trust the teacher in proportion to its own confidence.

    Args:
        student: see `AdversarialDistiller`.
        beta: see above, >= 0; published: 0.1.
        begin: fraction of the epochs in which A is 1, in [0, 1); published: 60 of 200.
        settings: see `AdversarialDistiller`.
    """

    def __init__(
        self, student: nn.Module, optimizer: OptimizerFactory, *, beta: float, begin: float, **settings: Any
    ) -> None:
        self._beta, self._begin = beta, begin
        super().__init__(student, optimizer, **settings)

    def set_weights(self, epoch: int, epochs: int) -> None:
        """As ever; and whether the epoch is after the first ones."""
        super().set_weights(epoch, epochs)
        self._introspective = epoch >= self._begin * epochs

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        moved = self.attacked(self.wrong(batch.target), batch)
        teacher = self.teacher_logits(batch.inputs)
        clean, attacked = self.student(batch.inputs), self.student(moved)

        def soft() -> Tensor:
            distilled = self.soft_value(attacked, teacher, batch)
            if not self._introspective:
                return distilled
            doubt = 1 - self._trust(moved, batch.target)
            return distilled + (doubt * divergence(clean, attacked, self.task.kind)).mean()

        return clean, self.distilled_terms(clean, batch, soft)

    def _trust(self, moved: Tensor, target: Tensor) -> Tensor:
        assert self.teacher is not None
        said = self.teacher(moved).logits
        probability = outcomes(said, said, self.task.kind)[0].softmax(1)
        truth = class_numbers(target, probability, self.task.kind)
        truth = torch.where(truth == UNLABELED, probability.argmax(1), truth)
        return of_class(probability, truth) ** self._beta
