"""What is measured of a network or of a file on the run's test split."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kdexp.contracts import Batch, Outputs, Task
from kdexp.experiment.data import Data
from kdexp.experiment.new_metrics import new_metrics
from kdexp.export.parity import Parity
from kdexp.metrics.evaluate import evaluate
from kdexp.metrics.groups import group_accuracy
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.grid import Measured
from kdexp.robustness.settings import EXPORTED, STUDENT

N_RESAMPLES, CONFIDENCE_LEVEL = 1000, 0.95
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OnTest:
    """What came out on the test split.

    Attributes:
        metrics: those of the task, and accuracy by group; what needs more of a network than its outputs is left out.
        records: see `kdexp.contracts.Task.records`.
        parity: with another network.
    """

    metrics: dict[str, float]
    records: Tensor
    parity: Parity


def on_test(data: Data, network: Network, expected: Network | None, device: torch.device) -> OnTest:
    """Measure a network, and how far its outputs are from another's.

    Args:
        data: the run's.
        network: normalised inputs to logits, on the device.
        expected: likewise; None: there is none to compare with.
        device: of the batches.
    """
    records: list[Tensor] = []
    parity = Parity()

    def keep(batch: Batch, logits: Tensor, _: Tensor | None) -> None:
        records.append(data.task.records(logits, batch.target).cpu())

    metrics = evaluate(
        network,
        data.student.eval_batches("test", device),
        new_metrics(data, "test").to(device),
        teacher=None if expected is None else lambda inputs: Outputs(expected(inputs)),
        watchers=[keep] if expected is None else [keep, parity],
        what="evaluating on test",
    )
    if data.groups is not None:
        metrics |= group_accuracy(network, data.student.eval_batches("test", device), data.task.kind, data.groups)
    return OnTest(metrics, torch.cat(records), parity)


def difference(task: Task, own: Tensor, of_student: Tensor) -> dict[str, object]:
    """The measure of the file less that of the float student, with its interval by the paired bootstrap.

    Args:
        task: the run's.
        own: records of the test samples, see `OnTest.records`.
        of_student: the same of the student.

    Returns:
        ``{value, low, high}``.
    """
    both = {STUDENT: Measured({}, {task.record: of_student}), EXPORTED: Measured({}, {task.record: own})}
    bootstrap = Bootstrap(both, task, seed=0, n_resamples=N_RESAMPLES, confidence_level=CONFIDENCE_LEVEL)
    values = bootstrap.clean()
    return bootstrap.difference(values[EXPORTED] - values[STUDENT])
