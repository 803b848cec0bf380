"""Classification: one row of logits for each sample."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdexp.config.require import require
from kdexp.contracts import UNLABELED, Batch, Capability, Kind, Outputs, Source, Split, TaskMetrics
from kdexp.data.splits import check_source
from kdexp.data.texts import are_texts
from kdexp.losses.cross_entropy import cross_entropy
from kdexp.metrics.rows import right
from kdexp.tasks.step_means import mean_of_step

_NETWORKS = {1: ("mlp",), 2: ("rnn", "mlp"), 3: ("cnn", "resnet20", "mlp", "timm", "torchvision", "huggingface")}
"""By the dimensions of a sample; some of many."""


@dataclass(frozen=True)
class Classification:
    """See `kdexp.contracts.Task`.

    Attributes:
        num_outputs: C, the number of logits; 1 for binary.
        kind: what logits and targets mean.
        label_smoothing: of the hard term, in [0, 1).
    """

    num_outputs: int
    kind: Kind = "multiclass"
    label_smoothing: float = 0.0
    measure: str = field(default="acc", init=False)
    record: str = field(default="right", init=False)
    supports: frozenset[Capability] = field(default=frozenset({"curves", "robustness", "attacks"}), init=False)

    @property
    def monitor(self) -> str:
        """Accuracy; of two classes, and of yes/no labels, AUC.

        Where the answer is yes or no, a rare yes hides in the accuracy; where there are many classes, the AUC is best
        while the accuracy still rises: docs/best_epoch.md.
        """
        return "val/auc" if self.kind != "multiclass" or self.num_outputs == 2 else "val/acc"

    def check_source(self, source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
        """See `kdexp.data.splits.check_source`; inputs are numbers."""
        check_source(source, kind, num_classes, input_shape)
        require(not are_texts(source.train_inputs), "task", "must be text where inputs are texts", "classification")

    def networks(self, input_shape: Sequence[int]) -> Sequence[str]:
        """See `kdexp.contracts.Task`."""
        return _NETWORKS.get(len(input_shape), ())

    def logits_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """C numbers, whatever the inputs are."""
        return (self.num_outputs,)

    def hard(self, student: Outputs, batch: Batch) -> Tensor:
        """See `kdexp.losses.cross_entropy.cross_entropy`; over all labels of the step."""
        mean = cross_entropy(student.logits, batch.target, kind=self.kind, label_smoothing=self.label_smoothing)
        is_mixed = self.kind == "multiclass" and batch.target.is_floating_point()
        return mean_of_step(mean, batch, lambda target: (target if is_mixed else target != UNLABELED).sum())

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of all samples' logits, over all samples of the step."""
        mean: Tensor = loss(student.logits, teacher.logits, batch.target)
        return mean_of_step(mean, batch, lambda target: torch.tensor(len(target), device=mean.device))

    def metrics(
        self, *, split: Split | None = None, fidelity: bool = False, of_training: bool = False, alone: bool = False
    ) -> TaskMetrics:
        """See `kdexp.metrics.classification.Metrics`; of training batches accuracy alone, of val in an epoch not all.

        An evaluation that one rank does is done once.
        """
        from kdexp.metrics.classification import Metrics  # here: the checks of a configuration do without torchmetrics

        return Metrics(
            self.kind,
            self.num_outputs,
            samples=len(split) if split is not None else 0,
            fidelity=fidelity,
            accuracy_only=of_training,
            in_full=alone,
            sync_on_compute=not alone,
        )

    def records(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) float32: of each sample the fraction of its labels that is right, whose mean is the accuracy."""
        return right(logits, target, self.kind)

    def measure_of(self, mean: Tensor) -> Tensor:
        """The mean itself."""
        return mean
