"""The terms of the loss."""

from collections.abc import Callable

from omegaconf import DictConfig
from torch import Tensor

from kdexp.config.compose import plain
from kdexp.config.objects import instantiate
from kdexp.contracts import UNLABELED, Splits, TeacherStudentPair
from kdexp.schedules import anneal
from kdexp.training.settings import TERM_KEYS
from kdexp.training.terms import Term


def term(loss: DictConfig, pair: TeacherStudentPair | None = None) -> Term:
    """A soft loss with its weights; with the pair of networks that it compares, a feature loss."""
    settings = plain(loss)
    weights = {key: settings.pop(key) for key in TERM_KEYS if key in settings}
    settings.pop("published", None)
    built = instantiate(settings, "loss") if pair is None else instantiate(settings, "feature_loss", pair)
    return Term(built, **weights)


def train_labels(splits: Splits) -> Tensor:
    """The label of each training sample at the place of its index."""
    train = splits.train
    labels = train.target.new_full((len(train.inputs), *train.target.shape[1:]), UNLABELED)
    labels[train.index] = train.target
    return labels


def annealed(start: float, schedule: DictConfig) -> float | Callable[[float], float]:
    """A number, or what gives it for the progress in [0, 1] of a training."""
    if schedule.kind == "constant":
        return start
    return lambda progress: anneal(start, schedule.final, progress, schedule.kind)
