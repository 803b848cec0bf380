"""Which epoch of a training is the best one: by which metric on val, and which direction of it is better."""

from collections.abc import Mapping, Sequence
from typing import Literal

OF_MASKS = ("val/miou", "val/dice", "val/image_dice", "val/sensitivity", "val/specificity")
"""Those of `DIRECTIONS` that only segmentation has."""
OF_IMAGES = ("val/neg_elbo",)
"""Those that only generation has."""
DIRECTIONS: Mapping[str, Literal["max", "min"]] = {
    **dict.fromkeys(("val/acc", "val/acc_top5", "val/precision", "val/recall", "val/f1", "val/auc"), "max"),
    **dict.fromkeys(OF_MASKS, "max"),
    "val/robust_acc": "max",
    **dict.fromkeys(("val/loss", "val/nll", "val/ece", *OF_IMAGES), "min"),
}
"""What an epoch can be chosen by. Not what compares a student with its teacher: a control and a teacher have none."""
AUTO = "auto"
TIE_BREAKER = "val/nll"


def rule(setting: str | None, usual: str, *, attacked: bool) -> tuple[str, str | None]:
    """What chooses the best epoch of a training, and what decides between equal ones; both as `score` takes them.

    Args:
        setting: ``trainer.monitor`` or a teacher's ``recipe.monitor``: one of `DIRECTIONS` or auto; None: a
            configuration of an older kdexp, which took the first of the epochs with the highest accuracy.
        usual: see `kdexp.contracts.Task.monitor`.
        attacked: whether it is a training on adversarial examples.
    """
    if setting is None:
        return "val/robust_acc" if attacked else "val/acc", None
    if setting != AUTO:
        return setting, TIE_BREAKER
    return "val/robust_acc" if attacked else usual, TIE_BREAKER


def score(metrics: Mapping[str, float], monitor: str, tie_breaker: str | None = None) -> tuple[float, float]:
    """How good an epoch is: a pair of numbers, the greater the better.

    Args:
        metrics: name -> value of that epoch, those below among them.
        monitor: one of `DIRECTIONS`.
        tie_breaker: another one, that decides between epochs of equal value where it is among the metrics; None: none.
    """
    if tie_breaker is None or tie_breaker not in metrics:
        return _score(metrics, monitor), 0.0
    return _score(metrics, monitor), _score(metrics, tie_breaker)


def best_epoch(rows: Sequence[Mapping[str, float]], monitor: str) -> Mapping[str, float]:
    """The row of the epoch that a training would choose; empty where no row has the metric.

    Args:
        rows: of metrics.csv.
        monitor: one of `DIRECTIONS`.
    """
    return max((row for row in rows if monitor in row), key=lambda row: score(row, monitor, TIE_BREAKER), default={})


def _score(metrics: Mapping[str, float], name: str) -> float:
    return metrics[name] if DIRECTIONS[name] == "max" else -metrics[name]
