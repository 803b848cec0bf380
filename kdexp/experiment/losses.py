"""The terms of the loss."""

from typing import Any

from torch import Tensor, nn

from kdexp.config.compose import plain
from kdexp.config.objects import instantiate
from kdexp.contracts import UNLABELED, Pair, Splits
from kdexp.experiment.networks import side_of, the_teacher
from kdexp.schedules import anneal
from kdexp.training.settings import TERM_KEYS
from kdexp.training.terms import Term


def term(config: Any, pair: Pair | None = None) -> Term:
    """A soft loss with its weights; with the pair of networks that it compares, a representation loss."""
    settings = plain(config)
    weights = {key: settings.pop(key) for key in TERM_KEYS if key in settings}
    settings.pop("published", None)
    built = instantiate(settings, "loss") if pair is None else instantiate(settings, "feature_loss", pair)
    return Term(built, **weights)


def feature_losses(config: Any, learner: nn.Module, frozen: nn.Module, labels: Tensor) -> dict[str, Term]:
    """The representation losses, with their adapters and weights.

    Args:
        config: the experiment's.
        learner: the student.
        frozen: the teacher's network.
        labels: see `Pair`.
    """
    setting, member = the_teacher(config)
    sides = side_of(config, "student", config.student, learner), side_of(config, setting, member, frozen)
    pair = Pair(*sides, labels, config.dataset.num_outputs)
    return {name: term(loss, pair) for name, loss in config.feature_loss.items()}


def train_labels(splits: Splits) -> Tensor:
    """The label of each training sample at the place of its index."""
    train = splits.train
    labels = train.target.new_full((len(train.inputs), *train.target.shape[1:]), UNLABELED)
    labels[train.index] = train.target
    return labels


def annealed(start: float, schedule: Any) -> Any:
    """A number, or what gives it for the progress in [0, 1] of a training."""
    if schedule.kind == "constant":
        return start
    return lambda progress: anneal(start, schedule.final, progress, schedule.kind)
