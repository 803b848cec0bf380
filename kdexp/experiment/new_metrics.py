"""Metrics that fit an experiment's data, with nothing in them yet."""

from kdexp.contracts import TaskMetrics
from kdexp.experiment.data import Data
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric


def new_metrics(data: Data, split: str, *, fidelity: bool = False, alone: bool = True) -> TaskMetrics:
    """Metrics for one split as the student sees it; ``alone`` for an evaluation that only one rank does."""
    return data.task.metrics(samples=len(getattr(data.student.splits, split)), fidelity=fidelity, alone=alone)


def new_curves(data: Data) -> RocAndConfusionMetric:
    """ROC curves and confusion matrix of the test split, for an evaluation that only one rank does."""
    samples = len(data.student.splits.test)
    return RocAndConfusionMetric(data.task.kind, data.task.num_outputs, samples=samples, sync_on_compute=False)
