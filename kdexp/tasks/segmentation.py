"""Segmentation: one row of logits for each pixel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdexp.config.require import is_number, require
from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch, Capability, Kind, Outputs, Source, Split, TaskMetrics
from kdexp.data.masks import check_masks
from kdexp.losses.all_gather import number_of_ranks
from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.dice import dice
from kdexp.models.tiles import Tiles
from kdexp.tasks.step_means import mean_of_step

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
        tile: height and width of the tiles in which larger images are evaluated, see `kdexp.models.tiles.tiled`; None:
            images are evaluated whole.
        tile_overlap: of two neighbouring tiles, in pixels.
    """

    num_outputs: int
    kind: Kind = "multiclass"
    label_smoothing: float = 0.0
    dice_weight: float = 1.0
    distill_void: bool = False
    tile: int | None = None
    tile_overlap: int = 128
    record: str = field(default="areas", init=False)
    supports: frozenset[Capability] = field(default=frozenset({"curves", "masks", "robustness"}), init=False)

    @property
    def measure(self) -> str:
        """Mean IoU; of one class and its background Dice."""
        return "dice" if self.kind == "binary" else "miou"

    @property
    def monitor(self) -> str:
        """Likewise."""
        return f"val/{self.measure}"

    def check_source(self, source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
        """See `kdexp.data.masks.check_masks`; the crops that networks are trained on must be no larger than a tile."""
        check_masks(source, kind, num_classes, input_shape)
        if self.tile is not None and input_shape is not None:
            crop = list(input_shape[1:])
            require(max(crop) <= self.tile, "task.tile", f"must be at least dataset.input_shape's {crop}", self.tile)

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
        for name, value in (("tile", 0 if self.tile is None else self.tile), ("tile_overlap", self.tile_overlap)):
            require(type(value) is int, f"task.{name}", "must be a whole number of pixels", value)
        if self.tile is not None:
            require(self.tile >= 1, "task.tile", "must be null or at least 1", self.tile)
            rule = f"must be in [0, {self.tile}), below task.tile"
            require(0 <= self.tile_overlap < self.tile, "task.tile_overlap", rule, self.tile_overlap)

    @property
    def tiles(self) -> Tiles | None:
        """How networks are evaluated on images that are larger than a tile."""
        return None if self.tile is None else Tiles(self.tile, self.tile_overlap)

    def networks(self, input_shape: Sequence[int]) -> Sequence[str]:
        """See `kdexp.contracts.Task`."""
        return ("mobilenet_unet", "unet", "torchvision_segmentation", "smp", "huggingface")

    def logits_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """(C, H, W) for images (channels, H, W)."""
        return (self.num_outputs, *input_shape[1:])

    def hard(self, student: Outputs, batch: Batch) -> Tensor:
        """Cross entropy, the mean over the pixels with a class, and `dice_weight` times Dice, the mean over images."""
        label = batch.target.clamp(min=UNLABELED)
        # A NaN in padding would come back in the gradient.
        logits = student.logits.where((label != UNLABELED).unsqueeze(1), 0)
        value = cross_entropy(logits, label, kind=self.kind, label_smoothing=self.label_smoothing)
        value = mean_of_step(value, batch, lambda target: (target >= 0).sum())
        if self.dice_weight:
            of_images = dice(student.logits, batch.target, kind=self.kind)
            images = mean_of_step(of_images, batch, lambda target: (target >= 0).flatten(1).any(1).sum())
            value = value + self.dice_weight * images
        return value

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of the pixels' logits, as rows; 0 (with a gradient of 0) when there is none.

        A loss that compares rows with each other gets `COMPARED_ROWS` of them, evenly spaced.
        """
        target = batch.target
        counts = self._distilled(target)
        if not counts.any() and number_of_ranks() == 1:
            return student.logits.where(counts.unsqueeze(1), 0).sum()
        given = [outputs.logits.movedim(1, -1)[counts] for outputs in (student, teacher)]
        given.append(target[counts].clamp(min=UNLABELED))
        if getattr(loss, "compares_samples", False) and len(given[0]) > COMPARED_ROWS:
            places = torch.arange(COMPARED_ROWS, device=target.device)
            kept = places * (len(given[0]) - 1) // (COMPARED_ROWS - 1)
            given = [each[kept] for each in given]
        value: Tensor = loss(*given)
        if not len(given[0]):  # of other ranks' rows, if the loss gathers them, else 0 / 0
            value = value.nan_to_num(0.0)
        return mean_of_step(value, batch, lambda target: self._distilled(target).sum())

    def _distilled(self, target: Tensor) -> Tensor:
        exists = target != ABSENT
        return exists if self.distill_void else exists & (target != VOID)

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
