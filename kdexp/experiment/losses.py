"""The terms of the loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from kdexp.config.compose import plain
from kdexp.config.objects import instantiate
from kdexp.config.require import Values
from kdexp.contracts import UNLABELED, FeatureLoss, NetworkFeatures, Splits, TeacherStudentPair
from kdexp.data.splits import has_labels
from kdexp.schedules import anneal
from kdexp.training.settings import TERM_KEYS, Schedule
from kdexp.training.terms import Term


@dataclass(frozen=True)
class Losses:
    """The terms of the student's loss besides the hard one.

    Attributes:
        soft: that of conf/loss; None for a control and for training on adversarial examples alone.
        features: feature distillation losses by name, with their adapters.
    """

    soft: Term | None = None
    features: Mapping[str, Term] = field(default_factory=dict)

    @property
    def teacher_paths(self) -> list[str]:
        """Module paths of the teacher's features that the losses read."""
        paths: list[str] = []
        for each in self.features.values():
            paths += cast(Sequence[str], each.loss.teacher_paths)
        return paths


def feature_terms(
    settings: Mapping[str, Values], sides: tuple[NetworkFeatures, NetworkFeatures], labels: Tensor, outputs: int
) -> dict[str, Term]:
    """The feature losses by name, with their adapters and weights.

    Args:
        settings: of each.
        sides: the student and the teacher.
        labels: see `kdexp.contracts.TeacherStudentPair`.
        outputs: of each network.

    Raises:
        ValueError: one does not fit the networks.
    """
    pair = TeacherStudentPair(*sides, labels, outputs)
    terms = {name: build_term(loss, pair, f"feature_loss.{name}.") for name, loss in settings.items()}
    for name, term in terms.items():
        loss = cast(FeatureLoss, term.loss)
        for side, paths in ((pair.student, loss.student_paths), (pair.teacher, loss.teacher_paths)):
            _refuse_padding(name, side, paths)
    return terms


def _refuse_padding(name: str, side: NetworkFeatures, paths: Sequence[str]) -> None:
    """See that a loss that reads sequences of tokens knows which of them are padding."""
    mask = side.layers.mask
    padded = [path for path in paths if mask is not None and len(side.shapes.get(path, ())) == 3]
    if padded and mask not in paths:
        rule = "must read vectors of texts, or their mask (cosine, feature_mse, fitnet, pkd and minilm do)"
        raise ValueError(f"feature_loss={name} {rule}, got tokens and padding from {padded[0]!r} alone")


def build_term(loss: Values, pair: TeacherStudentPair | None = None, prefix: str = "loss.") -> Term:
    """A soft loss with its weights; with the pair of networks that it compares, a feature loss.

    Args:
        loss: its part of the configuration.
        pair: see above.
        prefix: of its settings, for messages.
    """
    given = plain(loss)
    settings = {key: value for key, value in given.items() if key not in (*TERM_KEYS, "published")}
    weights = {key: given[key] for key in TERM_KEYS if key in given}
    slot, args = ("loss", ()) if pair is None else ("feature_loss", (pair,))
    built = instantiate(settings, slot, *args, prefix=prefix)
    return Term(built, **weights)


def train_labels(splits: Splits) -> Tensor:
    """The label of each training sample at the place of its index; (0,) where targets are no labels."""
    train = splits.train
    if not has_labels(train.target):
        return torch.empty(0, dtype=torch.int64)
    labels = train.target.new_full((len(train.inputs), *train.target.shape[1:]), UNLABELED)
    labels[train.index] = train.target
    return labels


def annealed(start: float, schedule: Schedule) -> float | Callable[[float], float]:
    """A number, or what gives it for the progress in [0, 1] of a training."""
    kind, final = schedule.kind, schedule.final
    if kind == "constant":
        return start
    assert final is not None  # as it was checked
    return lambda progress: anneal(start, final, progress, kind)
