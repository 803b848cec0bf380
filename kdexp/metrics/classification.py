"""Accuracy, precision, recall, F1, AUC and the others of one split."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric, StatScores, SumMetric

from kdexp.contracts import UNLABELED, Kind
from kdexp.losses.kd import kd
from kdexp.metrics.auc import Ranking
from kdexp.metrics.calibration import CalibrationError, brier, log_loss
from kdexp.metrics.mean import Mean
from kdexp.metrics.rows import decisions, labels, rows
from kdexp.metrics.selective import SelectivePrediction


class Metrics(nn.Module):
    """The metrics of one split, synchronised over ranks when they are computed.

    - ``loss``: mean of what `update` was given, weighted by samples.
    - ``acc``: fraction of samples (sigmoid tasks: of labels) that are right. ``acc_top5``: the label is among the five
      largest logits; multiclass with more than 5 classes.
    - ``precision``, ``recall``, ``f1``: macro: mean over the classes that occur as a label or as a prediction; one
      that has no true positive scores 0. Binary: of class 1.
    - ``auc``: area under the ROC curve, one class against the rest, mean over the classes that have both positive and
      negative samples. Binary: of class 1. Classes are ranked by their log odds, which do not saturate. Exact but for
      splits so large that their scores do not fit in memory (see `kdexp.metrics.auc.EXACT_BYTES`): their scores are
      binned, and ``auc_error`` is there too, how far from the exact value ``auc`` is at most.
    - ``nll``: negative log likelihood in nats, mean over samples (sigmoid tasks: and labels).
    - ``ece``: expected calibration error (Guo et al. 2017, equation 3; 15 bins of equal width, each with its upper end)
      of the top class; sigmoid tasks: of the probability of 1, over all labels.
    - ``agreement``: fraction of samples (labels) on which student and teacher decide alike. ``kl_to_teacher``:
      KL(teacher || student) at T = 1 in nats, mean over samples (labels). ``agreement_teacher_wrong``: the agreement on
      samples (labels) on which the teacher is wrong: how far its mistakes were learned.

    In full there are besides

    - ``brier``: see `kdexp.metrics.calibration.brier`, mean over samples (labels).
    - ``aurc``, ``augrc``, ``failure_auroc``, ``coverage_at_5``: see `kdexp.metrics.selective.Selective`.
    - ``worst_class``: the lowest recall of a class that occurs as a label (multilabel: of a label that is 1 somewhere),
      and ``worst_class_index`` its number; of equals the first.
    - ``agreement_teacher_right``: the agreement on samples (labels) on which the teacher is right, and
      ``teacher_wrong_samples`` on how many (labels) it is wrong.

    Samples without a label count in the loss, agreement and kl_to_teacher alone. Every position of dense logits is a
    sample. A value that is not defined (an AUC where a single class occurs, anything where no label does) is left out
    of the result; NaN stands for a network whose logits are NaN, and for nothing else.

    Args:
        kind: what logits and targets mean.
        num_classes: C, the number of logits.
        samples: rows in the split, over all ranks; it decides whether the AUC is exact. 0: exact.
        fidelity: whether `update` is given the teacher's logits.
        accuracy_only: acc and acc_top5 (and the loss) alone, which never wait for the device: for training batches.
        in_full: for what is evaluated once, not in every epoch.
        sync_on_compute: False where one rank computes alone.
    """

    def __init__(
        self,
        kind: Kind,
        num_classes: int,
        *,
        samples: int = 0,
        fidelity: bool = False,
        accuracy_only: bool = False,
        in_full: bool = False,
        sync_on_compute: bool = True,
    ) -> None:
        super().__init__()
        self._kind: Kind = kind
        self._accuracy_only = accuracy_only
        names = ["loss", "acc"]
        names += ["acc_top5"] if kind == "multiclass" and num_classes > 5 else []
        names += ["nll"] if not accuracy_only else []
        names += ["agreement", "kl_to_teacher", "agreement_teacher_wrong"] if fidelity else []
        names += ["agreement_teacher_right"] if fidelity and in_full else []
        names += ["brier"] if in_full else []
        self._means = nn.ModuleDict({name: Mean(sync_on_compute=sync_on_compute) for name in names})
        if not accuracy_only:
            self._counts = StatScores(task=kind, average=None, **shared_options(num_classes, sync_on_compute))
            self._ranking = Ranking(kind, num_classes, samples=samples, sync_on_compute=sync_on_compute)
            self._calibration = CalibrationError(sync_on_compute=sync_on_compute)
        self._selective = SelectivePrediction(sync_on_compute=sync_on_compute) if in_full else None
        self._mistakes = SumMetric(sync_on_compute=sync_on_compute) if in_full and fidelity else None

    @torch.no_grad()
    def update(
        self, logits: Tensor, target: Tensor, loss: Tensor | None = None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            logits: (N, C) or dense (N, C, ...), any float dtype.
            target: see `kdexp.contracts.Batch`; a mixed target counts as its largest label.
            loss: scalar, mean over the batch's samples.
            teacher_logits: the same shape as logits; needed when fidelity is measured.
        """
        if loss is not None:
            self._add("loss", loss.detach() * len(logits), len(logits))
        logits, label = rows(logits), labels(target, self._kind)
        labelled = (label != UNLABELED).sum()
        decision = decisions(logits, self._kind)
        self._add("acc", (decision == label).sum(), labelled)
        if "acc_top5" in self._means:
            self._add("acc_top5", (logits.topk(5, 1).indices == label.unsqueeze(1)).sum(), labelled)
        if "agreement" in self._means:
            assert teacher_logits is not None
            teacher_logits, count = rows(teacher_logits), decision.numel()
            of_teacher = decisions(teacher_logits, self._kind)
            alike, wrong = decision == of_teacher, (of_teacher != label) & (label != UNLABELED)
            self._add("agreement", alike.sum(), count)
            self._add("agreement_teacher_wrong", (alike & wrong).sum(), wrong.sum())
            if self._mistakes is not None:
                is_right = of_teacher == label
                self._add("agreement_teacher_right", (alike & is_right).sum(), is_right.sum())
                self._mistakes.update(wrong.sum())
            self._add("kl_to_teacher", kd(logits, teacher_logits, 1.0, kind=self._kind) * count, count)
        if self._accuracy_only:
            return
        self._add("nll", log_loss(logits, label, self._kind).sum(), labelled)
        self._counts.update(decision, label)
        self._ranking.update(logits, label)
        self._calibration.update(logits, label, self._kind)
        if self._selective is not None:
            self._add("brier", brier(logits, label, self._kind).sum(), labelled)
            self._selective.update(logits, label, self._kind)

    def _add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        cast(Mean, self._means[name]).update(total, count)

    def compute(self) -> dict[str, float]:
        """The values by name, of all that was added since the last reset, on all ranks."""
        means = {name: cast(Mean, mean) for name, mean in self._means.items()}
        values = {name: float(mean.compute()) for name, mean in means.items() if mean.update_called}
        if math.isnan(values.get("acc", math.nan)):  # nothing is labelled: a count has no other way to be NaN
            return {name: values[name] for name in ("loss", "agreement", "kl_to_teacher") if name in values}
        for when in ("wrong", "right"):
            if math.isnan(values.get(f"agreement_teacher_{when}", 0.0)):  # the teacher never is
                del values[f"agreement_teacher_{when}"]
        if self._accuracy_only:
            return values
        values |= self._label_metrics(values["nll"])
        return values | self._in_full(values["nll"]) if self._selective is not None else values

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

    def _in_full(self, nll: float) -> dict[str, float]:
        assert self._selective is not None
        found = self._selective.compute()._asdict()
        defined = {name: value for name, value in found.items() if not math.isnan(value)}
        values = dict.fromkeys(defined, math.nan) if math.isnan(nll) else defined  # NaN logits have no order
        tp, fp, tn, fn, _ = self._counts.compute().view(-1, 5).double().unbind(1)
        if self._kind == "binary":
            tp, fn = torch.cat((tn, tp)), torch.cat((fp, fn))
        recall = tp / (tp + fn)
        if not recall.isnan().all():
            worst = int(recall.nan_to_num(torch.inf).argmin())
            values |= {"worst_class": float(recall[worst]), "worst_class_index": worst}
        if self._mistakes is not None:
            values["teacher_wrong_samples"] = float(self._mistakes.compute())
        return values

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()


def shared_options(num_classes: int, sync_on_compute: bool) -> dict[str, Any]:
    """What all of torchmetrics' metrics get here."""
    return {
        "num_classes": num_classes,
        "num_labels": num_classes,
        "ignore_index": UNLABELED,
        "validate_args": False,
        "sync_on_compute": sync_on_compute,
    }
