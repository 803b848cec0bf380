"""Segmentation: one row of logits for each pixel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdexp.config.require import is_number, require
from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch, Capability, Kind, Outputs, Source, Split, TaskMetrics
from kdexp.data.masks import check_masks
from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.dice import dice

COMPARED_ROWS = 4096
"""Pixels of a batch that are compared with each other: as many as CIRKD keeps (Yang et al. 2022, arXiv 2204.06986)."""


@dataclass(frozen=True)
class Segmentation:
    """See `kdexp.contracts.Task`. Logits are (N, C, H, W), masks (N, H, W) int64.

    A pixel with a class has both terms; one that is ``UNLABELED`` has the soft term alone, one that is ``VOID`` that
    only if it is asked for, one that is ``ABSENT`` neither.

    Attributes:
        num_outputs: C, the number of logits; 1 for binary.
        kind: multiclass or binary.
        label_smoothing: of the cross entropy, in [0, 1).
        dice_weight: how much `kdexp.losses.dice.dice` counts in the hard term beside the cross entropy, >= 0; 1: as
            much (nnU-Net, Isensee et al. 2021).
        distill_void: whether the teacher is followed where the data set withholds the label, too.
    """

    num_outputs: int
    kind: Kind = "multiclass"
    label_smoothing: float = 0.0
    dice_weight: float = 1.0
    distill_void: bool = False
    record: str = field(default="areas", init=False)
    supports: frozenset[Capability] = field(default=frozenset({"curves", "robustness"}), init=False)

    @property
    def measure(self) -> str:
        """Mean IoU; of one class and its background Dice."""
        return "dice" if self.kind == "binary" else "miou"

    @property
    def monitor(self) -> str:
        """Likewise."""
        return f"val/{self.measure}"

    def check_source(self, source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
        """See `kdexp.data.masks.check_masks`."""
        check_masks(source, kind, num_classes, input_shape)

    def __post_init__(self) -> None:
        """See that the settings are what a task of masks can have.

        Raises:
            ValueError: they are not.
        """
        rule = "must be multiclass or binary where targets are masks"
        require(self.kind in ("multiclass", "binary"), "dataset.kind", rule, self.kind)
        is_weight = is_number(self.dice_weight) and 0 <= self.dice_weight < math.inf
        require(is_weight, "task.dice_weight", "must be >= 0", self.dice_weight)
        require(isinstance(self.distill_void, bool), "task.distill_void", "must be true or false", self.distill_void)

    def logits_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """(C, H, W) for images (channels, H, W)."""
        return (self.num_outputs, *input_shape[1:])

    def hard(self, student: Outputs, batch: Batch) -> Tensor:
        """Cross entropy, the mean over the pixels with a class, and `dice_weight` times Dice."""
        label = batch.target.clamp(min=UNLABELED)
        # A NaN in padding would come back in the gradient.
        logits = student.logits.where((label != UNLABELED).unsqueeze(1), 0)
        value = cross_entropy(logits, label, kind=self.kind, label_smoothing=self.label_smoothing)
        if self.dice_weight:
            value = value + self.dice_weight * dice(student.logits, batch.target, kind=self.kind)
        return value

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of the pixels' logits, as rows; 0 (with a gradient of 0) when there is none.

        A loss that compares rows with each other gets `COMPARED_ROWS` of them, evenly spaced.
        """
        target = batch.target
        counts = target != ABSENT
        if not self.distill_void:
            counts &= target != VOID
        if not counts.any():
            return student.logits.where(counts.unsqueeze(1), 0).sum()
        given = [outputs.logits.movedim(1, -1)[counts] for outputs in (student, teacher)]
        given.append(target[counts].clamp(min=UNLABELED))
        if getattr(loss, "compares_samples", False) and len(given[0]) > COMPARED_ROWS:
            places = torch.arange(COMPARED_ROWS, device=target.device)
            kept = places * (len(given[0]) - 1) // (COMPARED_ROWS - 1)
            given = [each[kept] for each in given]
        value: Tensor = loss(*given)
        return value

    def metrics(
        self, *, split: Split | None = None, fidelity: bool = False, of_training: bool = False, alone: bool = False
    ) -> TaskMetrics:
        """See `kdexp.metrics.segmentation.SegmentationMetrics`; of training batches what decisions give alone."""
        from kdexp.metrics.segmentation import SegmentationMetrics  # here: see `kdexp.tasks.classification`

        return SegmentationMetrics(
            self.kind,
            self.num_outputs,
            pixels=split.target.numel() if split is not None else 0,
            fidelity=fidelity,
            decisions_only=of_training,
            sync_on_compute=not alone,
        )

    def records(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, classes, 2) int64: `kdexp.metrics.segmentation.areas` of each image; two classes for the binary kind."""
        from kdexp.metrics.segmentation import areas, class_logits, confusions

        logits = class_logits(logits, self.kind)
        return areas(confusions(logits.argmax(1).flatten(1), target.flatten(1), logits.shape[1]))

    def measure_of(self, mean: Tensor) -> Tensor:
        """Mean IoU of sets of images, over the classes that each has; of one class and its background Dice.

        Of areas it does not matter whether they are summed over the images of a set or averaged.
        """
        from kdexp.metrics.segmentation import dice_of, iou_of

        return dice_of(mean)[..., 1] if self.kind == "binary" else iou_of(mean).nanmean(-1)
