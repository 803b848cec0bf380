"""The terms of the loss and what a step needs of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Term:
    """A soft or a feature distillation loss and its part in the whole.

    Attributes:
        loss: gives the value of the term.
        weight: factor of the term, >= 0.
        warmup_epochs: over so many epochs the weight rises linearly to its full value; 0: full from the start.
        init_fraction: fraction of the epochs, from the first, in which this term trains alone: the initialization of
            two-stage methods; rounded up, and at least one epoch is left.
        weight_after_init: factor of the weight when that stage is over.
    """

    loss: nn.Module
    weight: float = 1.0
    warmup_epochs: int = 0
    init_fraction: float = 0.0
    weight_after_init: float = 1.0

    def in_init_stage(self, epoch: int, epochs: int) -> bool:
        """Whether this epoch (from 0) of so many is in the term's init stage."""
        return epoch < min(math.ceil(self.init_fraction * epochs), epochs - 1)

    def weight_at(self, epoch: int, epochs: int) -> float:
        """The weight in this epoch, which counts from 0; the first has its share of a warm-up, as in DKD's code."""
        warmth = min((epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        later = self.weight_after_init if self.init_fraction and not self.in_init_stage(epoch, epochs) else 1.0
        return self.weight * warmth * later


@dataclass(frozen=True)
class TermWeights:
    """Factors of the terms in one epoch.

    Attributes:
        logits: of the hard and the soft term: 0 while a feature distillation loss trains alone, else 1.
        soft: of the soft term, besides ``1 - alpha``.
        features: name -> of each feature distillation loss; 0 while another one trains alone.
    """

    logits: float
    soft: float
    features: Mapping[str, float]


def weighted_term(weight: float, loss: Callable[..., Tensor], *arguments: object) -> tuple[float, Tensor]:
    """(weight, value) of a term. One without weight is still shown, but has no gradient."""
    # Labels that count for nothing must not be able to change a bit, and 0 * inf would.
    with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
        return weight, loss(*arguments)


def total_loss(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """The weighted sum of the terms that have a weight, of which there must be one.

    Args:
        terms: name -> (weight, value).
    """
    first, *others = [weight * term for weight, term in terms.values() if weight > 0]
    return sum(others, first)


def check_teacher(
    teacher: object, soft_loss: nn.Module | None, features: Mapping[str, Term], alpha: object, *, has_peers: bool
) -> None:
    """See that a teacher and losses that learn from it are given together.

    Args:
        teacher: None: there is none.
        soft_loss: None: there is none.
        features: feature distillation losses by name.
        alpha: 1 for the labels alone.
        has_peers: whether other students take the teacher's place.

    Raises:
        ValueError: one is given without the other.
    """
    if teacher is None and features:
        raise ValueError(f"teacher must be given with feature_losses ({', '.join(features)}), got None")
    if alpha == 1:  # the labels alone, on purpose
        return
    if teacher is not None and soft_loss is None and not features:
        raise ValueError("soft_loss or feature_losses must be given with a teacher unless alpha is 1, got neither")
    wants_one = soft_loss is not None and getattr(soft_loss, "needs_teacher", True)
    if teacher is None and wants_one and not has_peers:
        name = type(soft_loss).__name__
        raise ValueError(f"teacher must be given with soft_loss={name} unless alpha is 1, got None")


@dataclass(frozen=True)
class PrecomputedStep:
    """A training step's outcome that was computed before the step (`kdexp.sweeps.step_backends`).

    Attributes:
        logits: (N, C), without a gradient.
        terms: name -> (weight, value) of each part of the loss, without a gradient.
        gradients: of the loss, one for each trained parameter of the student.
    """

    logits: Tensor
    terms: Mapping[str, tuple[float, Tensor]]
    gradients: Sequence[Tensor]
