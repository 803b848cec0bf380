"""Metrics that fit an experiment's data, with nothing in them yet."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, TaskMetrics
from kdexp.experiment.data import Data
from kdexp.experiment.decision_collector import DecisionCollector
from kdexp.experiment.mask_collector import MaskCollector
from kdexp.experiment.text_collector import TextCollector
from kdexp.metrics.groups import group_accuracy
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric


def new_metrics(data: Data, split: str, *, fidelity: bool = False, alone: bool = True) -> TaskMetrics:
    """Metrics for one split as the student sees it; ``alone`` for an evaluation that only one rank does."""
    return data.task.metrics(split=getattr(data.student.splits, split), fidelity=fidelity, alone=alone)


def of_network(
    data: Data, network: nn.Module, device: torch.device, convert: Callable[[Tensor], Tensor] | None = None
) -> dict[str, float]:
    """What is measured on test besides by running the network once more: what a task has, and accuracy by group.

    Args:
        data: the experiment's.
        network: in eval mode.
        device: its own.
        convert: inputs that are normalised as the student's to the network's; None: they are.
    """

    def batches() -> Iterator[Batch]:
        for batch in data.student.eval_batches("test", device):
            yield batch if convert is None else replace(batch, inputs=convert(batch.inputs))

    measured = getattr(data.task, "of_network", None)
    found: dict[str, float] = {} if measured is None else measured(network, batches())
    if data.groups is not None:
        found |= group_accuracy(network, batches(), data.task.kind, data.groups)
    return found


def new_curves(data: Data) -> RocAndConfusionMetric | None:
    """ROC curves and confusion matrix of test, for an evaluation that one rank does; None for a task without any."""
    if "curves" not in data.task.supports:
        return None
    target = data.student.splits.test.target
    samples = target.numel() if data.is_dense else len(target)
    return RocAndConfusionMetric(data.task.kind, data.task.num_outputs, samples=samples, sync_on_compute=False)


def new_examples(data: Data) -> MaskCollector | TextCollector | None:
    """What keeps examples of test for pictures or tables; None for a task without any."""
    split, kind, supports = data.student.splits.test, data.task.kind, data.task.supports
    if "texts" in supports and kind != "multilabel":
        return TextCollector(split, kind)
    return MaskCollector(split, kind) if "masks" in supports else None


def new_decisions(data: Data) -> DecisionCollector | None:
    """What keeps what is decided of each sample of test; None for a task without classes of samples."""
    has_classes = "curves" in data.task.supports and not data.is_dense
    return DecisionCollector(data.task.kind) if has_classes else None
