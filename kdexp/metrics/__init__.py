"""How good a network is on one split, and how faithful it is to its teacher."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import ConfusionMatrix, Metric, StatScores

from kdexp.contracts import UNLABELED, Batch, Outputs, Task
from kdexp.losses.kd import kd
from kdexp.metrics.calibration import CalibrationError, log_loss
from kdexp.metrics.ranking import FALSE_POSITIVE_RATES, Ranking
from kdexp.metrics.rows import decisions, labels, rows
from kdexp.pace import paced

KEPT_CURVES = 20
"""Up to this many classes results.json keeps each class's own ROC curve; the macro one always."""

KEPT_CLASSES = 100
"""Up to this many classes results.json keeps the confusion matrix."""


class Mean(Metric):
    """A mean over a split and over ranks; NaN when nothing was added.

    ``torchmetrics.MeanMetric`` would do, but it either looks at the values to find NaN, which waits for the device at
    every step, or drops the weights: https://github.com/Lightning-AI/torchmetrics/issues/3434
    """

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor | int) -> None:
        """Add the sum (a scalar) of count items."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        return self.total / self.count


class Metrics(nn.Module):
    """The metrics of one split, synchronised over ranks when they are computed.

    - ``loss``: mean of what `update` was given, weighted by samples.
    - ``acc``: share of samples (sigmoid tasks: of labels) that are right. ``acc_top5``: the label is among the five
      largest logits; multiclass with more than 5 classes.
    - ``precision``, ``recall``, ``f1``: macro: mean over the classes that occur as a label or as a prediction; one
      that has no true positive scores 0. Binary: of class 1.
    - ``auc``: area under the ROC curve, one class against the rest, mean over the classes that have both positive and
      negative samples. Binary: of class 1. Classes are ranked by their log odds, which do not saturate. Exact but for
      splits so large that their scores do not fit in memory (see `kdexp.metrics.ranking.EXACT_BYTES`): their scores are
      binned, and ``auc_error`` is there too, how far from the exact value ``auc`` is at most.
    - ``nll``: negative log likelihood in nats, mean over samples (sigmoid tasks: and labels).
    - ``ece``: expected calibration error (Guo et al. 2017, equation 3; 15 bins of equal width, each with its upper end)
      of the top class; sigmoid tasks: of the probability of 1, over all labels.
    - ``agreement``: share of samples (labels) on which student and teacher decide alike. ``kl_to_teacher``:
      KL(teacher || student) at T = 1 in nats, mean over samples (labels). ``agreement_teacher_wrong``: the agreement on
      samples (labels) on which the teacher is wrong: how far its mistakes were learned.

    Samples without a label count in the loss, agreement and kl_to_teacher alone. Every position of dense logits is a
    sample. A value that is not defined (an AUC where a single class occurs, anything where no label does) is left out
    of the result; NaN stands for a network whose logits are NaN, and for nothing else.

    Args:
        task: what logits and targets mean.
        num_classes: C, the number of logits.
        samples: rows in the split, over all ranks; it decides whether the AUC is exact. 0: exact.
        fidelity: whether `update` is given the teacher's logits.
        accuracy_only: acc and acc_top5 (and the loss) alone, which never wait for the device: for training batches.
        sync_on_compute: False where one rank computes alone.
    """

    def __init__(
        self,
        task: Task,
        num_classes: int,
        *,
        samples: int = 0,
        fidelity: bool = False,
        accuracy_only: bool = False,
        sync_on_compute: bool = True,
    ) -> None:
        super().__init__()
        self._task: Task = task
        self._accuracy_only = accuracy_only
        names = ["loss", "acc"]
        names += ["acc_top5"] if task == "multiclass" and num_classes > 5 else []
        names += ["nll"] if not accuracy_only else []
        names += ["agreement", "kl_to_teacher", "agreement_teacher_wrong"] if fidelity else []
        self._means = nn.ModuleDict({name: Mean(sync_on_compute=sync_on_compute) for name in names})
        if not accuracy_only:
            self._counts = StatScores(task=task, average=None, **_options(num_classes, sync_on_compute))
            self._ranking = Ranking(task, num_classes, samples=samples, sync_on_compute=sync_on_compute)
            self._calibration = CalibrationError(sync_on_compute=sync_on_compute)

    @torch.no_grad()
    def update(
        self, logits: Tensor, target: Tensor, loss: Tensor | None = None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            logits: (N, C) or dense (N, C, ...), any float dtype.
            target: see `kdexp.contracts.Batch`; a mixed target counts as its largest label.
            loss: scalar, mean over the batch's samples.
            teacher_logits: the same shape as logits; needed when fidelity was asked for.
        """
        if loss is not None:
            self._add("loss", loss.detach() * len(logits), len(logits))
        logits, label = rows(logits), labels(target, self._task)
        labelled = (label != UNLABELED).sum()
        decision = decisions(logits, self._task)
        self._add("acc", (decision == label).sum(), labelled)
        if "acc_top5" in self._means:
            self._add("acc_top5", (logits.topk(5, 1).indices == label.unsqueeze(1)).sum(), labelled)
        if "agreement" in self._means:
            assert teacher_logits is not None
            teacher_logits, count = rows(teacher_logits), decision.numel()
            of_teacher = decisions(teacher_logits, self._task)
            alike, wrong = decision == of_teacher, (of_teacher != label) & (label != UNLABELED)
            self._add("agreement", alike.sum(), count)
            self._add("agreement_teacher_wrong", (alike & wrong).sum(), wrong.sum())
            self._add("kl_to_teacher", kd(logits, teacher_logits, 1.0, task=self._task) * count, count)
        if self._accuracy_only:
            return
        self._add("nll", log_loss(logits, label, self._task).sum(), labelled)
        self._counts.update(decision, label)
        self._ranking.update(logits, label)
        self._calibration.update(logits, label, self._task)

    def _add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        cast(Mean, self._means[name]).update(total, count)

    def compute(self) -> dict[str, float]:
        """The values by name, of all that was added since the last reset, on all ranks."""
        means = {name: cast(Mean, mean) for name, mean in self._means.items()}
        values = {name: float(mean.compute()) for name, mean in means.items() if mean.update_called}
        if math.isnan(values.get("acc", math.nan)):  # nothing is labelled: a count has no other way to be NaN
            return {name: values[name] for name in ("loss", "agreement", "kl_to_teacher") if name in values}
        if math.isnan(values.get("agreement_teacher_wrong", 0.0)):  # the teacher is never wrong
            del values["agreement_teacher_wrong"]
        return values if self._accuracy_only else values | self._label_metrics(values["nll"])

    def _label_metrics(self, nll: float) -> dict[str, float]:
        tp, fp, _, fn, _ = self._counts.compute().view(-1, 5).double().unbind(1)
        occurs = tp + fp + fn > 0
        scores = {"precision": tp / (tp + fp), "recall": tp / (tp + fn), "f1": 2 * tp / (2 * tp + fp + fn)}
        macro = {name: score.nan_to_num(0.0)[occurs] for name, score in scores.items()}
        values = {name: float(score.mean()) for name, score in macro.items() if len(score)}
        area, error = (each.view(-1) for each in self._ranking.compute()[:2])
        is_defined = ~area.isnan()
        if is_defined.any():
            # NaN logits have no order.
            values["auc"] = math.nan if math.isnan(nll) else float(area[is_defined].mean())
        values["ece"] = float(self._calibration.compute())
        if is_defined.any() and not self._ranking.is_exact:
            values["auc_error"] = float(error[is_defined].mean())
        return values

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()


@dataclass(frozen=True)
class CurveData:
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

    def compact(self) -> dict[str, Any]:
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
        kept: dict[str, Any] = {}
        if curves:
            kept["fpr"] = [round(rate, 4) for rate in next(iter(curves.values()))[0]]
            kept["roc"] = {name: [round(rate, 4) for rate in tpr] for name, (_, tpr) in curves.items()}
            kept["auc"] = areas
        if self.confusion is not None and len(self.confusion) <= KEPT_CLASSES:
            kept["confusion"] = self.confusion
        return kept


class Curves(nn.Module):
    """The ROC curves and the confusion matrix of a split.

    Args:
        task: what logits and targets mean.
        num_classes: C, the number of logits.
        samples: rows in the split; it decides whether the curves are exact. 0: exact.
        sync_on_compute: False where one rank computes alone.
    """

    def __init__(self, task: Task, num_classes: int, *, samples: int = 0, sync_on_compute: bool = True) -> None:
        super().__init__()
        self._task: Task = task
        self._ranking = Ranking(task, num_classes, samples=samples, curves=True, sync_on_compute=sync_on_compute)
        self._confusion = ConfusionMatrix(task=task, **_options(num_classes, sync_on_compute))

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch; see `Metrics.update`."""
        logits, label = rows(logits), labels(target, self._task)
        self._ranking.update(logits, label)
        self._confusion.update(decisions(logits, self._task), label)

    def compute(self) -> CurveData:
        """The curves of all that was added since the last reset."""
        area, _, curves = self._ranking.compute()
        assert curves is not None
        first = 1 if self._task == "binary" else 0
        defined = {first + i: i for i, value in enumerate(area.view(-1).tolist()) if not math.isnan(value)}
        fpr = _from_origin(FALSE_POSITIVE_RATES)
        tpr = {number: _from_origin(curves[place]) for number, place in defined.items()}
        auc = {number: float(area.view(-1)[place]) for number, place in defined.items()}
        return CurveData(
            roc={number: (fpr.tolist(), curve.tolist()) for number, curve in tpr.items()},
            auc=auc,
            macro=(fpr.tolist(), torch.stack(list(tpr.values())).mean(0).tolist()) if tpr else None,
            macro_auc=sum(auc.values()) / len(auc) if auc else None,
            confusion=None if self._task == "multilabel" else self._confusion.compute().tolist(),
        )

    def reset(self) -> None:
        """Forget all batches."""
        self._ranking.reset()
        self._confusion.reset()


def evaluate(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    metrics: Metrics,
    teacher: Callable[[Tensor], Outputs] | None = None,
    curves: Curves | None = None,
    loss_fn: Callable[[Tensor, Tensor | None, Tensor], Tensor] | None = None,
    what: str = "evaluating",
) -> dict[str, float]:
    """Measure a network, in eval mode and without gradients; every module is put back in the mode it was in.

    Args:
        network: (N, ...) normalised inputs to (N, C) logits; usually a module.
        batches: normalised, on the device of network and metrics.
        metrics: reset first.
        teacher: asked for each batch when given; needed by metrics that measure fidelity.
        curves: reset first and updated; the caller computes them.
        loss_fn: (logits, teacher's logits or None, target) to the batch's mean loss, for ``loss``.
        what: is done, for the log where it takes long.

    Returns:
        What ``metrics.compute()`` returns.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    metrics.reset()
    if curves is not None:
        curves.reset()
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            for batch in paced(batches, what):
                logits = network(batch.inputs)
                teacher_logits = teacher(batch.inputs).logits if teacher is not None else None
                loss = loss_fn(logits, teacher_logits, batch.target) if loss_fn is not None else None
                metrics.update(logits, batch.target, loss, teacher_logits)
                if curves is not None:
                    curves.update(logits, batch.target)
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
    return metrics.compute()


def _options(num_classes: int, sync_on_compute: bool) -> dict[str, Any]:
    return {
        "num_classes": num_classes,
        "num_labels": num_classes,
        "ignore_index": UNLABELED,
        "validate_args": False,
        "sync_on_compute": sync_on_compute,
    }


def _from_origin(curve: Tensor) -> Tensor:
    return torch.cat((torch.zeros(1), curve))  # it may begin with a vertical piece
