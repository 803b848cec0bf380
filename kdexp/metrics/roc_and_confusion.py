"""ROC curves and the confusion matrix."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import ConfusionMatrix

from kdexp.contracts import Kind
from kdexp.metrics.auc import FALSE_POSITIVE_RATES, Ranking
from kdexp.metrics.classification import shared_options
from kdexp.metrics.rows import decisions, labels, rows

KEPT_CURVES = 20
"""Up to this many classes results.json keeps each class's own ROC curve; the macro one always."""
KEPT_CLASSES = 100
"""Up to this many classes results.json keeps the confusion matrix."""


@dataclass(frozen=True)
class RocAndConfusion:
    """ROC curves and a confusion matrix as plain numbers.

    A curve is (fpr, tpr): the origin, and then the true positive rates at 201 evenly spaced false positive rates from 0
    to 1, linear between the points of the real curve.

    Attributes:
        roc: class -> its curve against the rest; only classes that have both positive and negative samples, and for
            the binary task class 1 alone.
        auc: class -> area under its real curve.
        macro: mean of the classes' curves; None when there are none.
        macro_auc: mean of the classes' areas; None when there are none.
        confusion: [true][predicted] -> samples, (C, C), for the binary task (2, 2); None for the multilabel task.
    """

    roc: dict[int, tuple[list[float], list[float]]]
    auc: dict[int, float]
    macro: tuple[list[float], list[float]] | None
    macro_auc: float | None
    confusion: list[list[int]] | None

    def compact(self) -> dict[str, object]:
        """What results.json keeps of them.

        Returns:
            ``roc``: class -> true positive rates rounded to four digits, and ``macro``, all at the rates ``fpr``, the
            classes' own only up to `KEPT_CURVES` classes; ``auc``: the same keys -> areas; ``confusion``: as it is, up
            to `KEPT_CLASSES` classes. What is not known is left out.
        """
        curves = {"macro": self.macro} if self.macro is not None else {}
        areas = {"macro": self.macro_auc} if self.macro is not None else {}
        if len(self.roc) <= KEPT_CURVES:
            curves |= {str(number): curve for number, curve in self.roc.items()}
            areas |= {str(number): area for number, area in self.auc.items()}
        kept: dict[str, object] = {}
        if curves:
            kept["fpr"] = [round(rate, 4) for rate in next(iter(curves.values()))[0]]
            kept["roc"] = {name: [round(rate, 4) for rate in tpr] for name, (_, tpr) in curves.items()}
            kept["auc"] = areas
        if self.confusion is not None and len(self.confusion) <= KEPT_CLASSES:
            kept["confusion"] = self.confusion
        return kept


class RocAndConfusionMetric(nn.Module):
    """The ROC curves and the confusion matrix of a split.

    Args:
        kind: what logits and targets mean.
        num_classes: C, the number of logits.
        samples: rows in the split; it decides whether the curves are exact. 0: exact.
        sync_on_compute: False where one rank computes alone.
    """

    def __init__(self, kind: Kind, num_classes: int, *, samples: int = 0, sync_on_compute: bool = True) -> None:
        super().__init__()
        self._kind: Kind = kind
        self._ranking = Ranking(kind, num_classes, samples=samples, curves=True, sync_on_compute=sync_on_compute)
        self._confusion = ConfusionMatrix(task=kind, **shared_options(num_classes, sync_on_compute))

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch; see `Metrics.update`."""
        logits, label = rows(logits), labels(target, self._kind)
        self._ranking.update(logits, label)
        self._confusion.update(decisions(logits, self._kind), label)

    def compute(self) -> RocAndConfusion:
        """The curves of all that was added since the last reset."""
        area, _, curves = self._ranking.compute()
        assert curves is not None
        first = 1 if self._kind == "binary" else 0
        defined = {first + i: i for i, value in enumerate(area.view(-1).tolist()) if not math.isnan(value)}
        fpr = _from_origin(FALSE_POSITIVE_RATES)
        tpr = {number: _from_origin(curves[place]) for number, place in defined.items()}
        auc = {number: float(area.view(-1)[place]) for number, place in defined.items()}
        return RocAndConfusion(
            roc={number: (fpr.tolist(), curve.tolist()) for number, curve in tpr.items()},
            auc=auc,
            macro=(fpr.tolist(), torch.stack(list(tpr.values())).mean(0).tolist()) if tpr else None,
            macro_auc=sum(auc.values()) / len(auc) if auc else None,
            confusion=None if self._kind == "multilabel" else self._confusion.compute().tolist(),
        )

    def reset(self) -> None:
        """Forget all batches."""
        self._ranking.reset()
        self._confusion.reset()


def _from_origin(curve: Tensor) -> Tensor:
    return torch.cat((torch.zeros(1), curve))  # it may begin with a vertical piece
