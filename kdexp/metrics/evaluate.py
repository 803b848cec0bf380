"""Metrics of a network on a split."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TaskMetrics
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric
from kdexp.progress_log import paced

Watcher = Callable[[Batch, Tensor, Tensor | None], None]
"""Is given each batch that is evaluated, the network's logits and, where there is a teacher, its logits."""


def evaluate(
    network: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    metrics: TaskMetrics,
    teacher: Callable[[Tensor], Outputs] | None = None,
    curves: RocAndConfusionMetric | None = None,
    watchers: Sequence[Watcher] = (),
    loss_fn: Callable[[Tensor, Tensor | None, Tensor], Tensor] | None = None,
    what: str = "evaluating",
) -> dict[str, float]:
    """Measure a network, in eval mode and without gradients; every module is put back in the mode it was in.

    Args:
        network: (N, ...) normalised inputs to (N, C) logits; usually a module.
        batches: normalised, on the device of network and metrics.
        metrics: reset first.
        teacher: run on each batch when given; needed by metrics that measure fidelity.
        curves: reset first and updated; the caller computes them.
        watchers: see `Watcher`.
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
                for watcher in watchers:
                    watcher(batch, logits, teacher_logits)
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
    return metrics.compute()
