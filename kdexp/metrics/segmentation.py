"""IoU, Dice, sensitivity, specificity and, of pixels, the metrics of classification."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from kdexp.contracts import ABSENT, UNLABELED, Kind
from kdexp.metrics.classification import Metrics
from kdexp.metrics.mean import Mean
from kdexp.metrics.rows import rows


class SegmentationMetrics(nn.Module):
    """The metrics of one split of masks, synchronised over ranks when they are computed.

    - ``loss``: mean of what `update` was given, weighted by the pixels that exist.
    - ``miou``: mean over classes of IoU = TP / (TP + FP + FN), of one confusion matrix over all images. A class that is
      only predicted has 0; one that is neither label nor prediction is left out. The background is a class, too.
    - ``dice``: 2 TP / (2 TP + FP + FN) of the same confusion matrix. Binary: of class 1. Multiclass: mean over the same
      classes as ``miou``.
    - ``image_dice``: the same of each image, mean over images. Binary: of class 1. Multiclass: of each class, then mean
      over classes (nnU-Net's order). An image is left out where the class is neither label nor prediction, and has 0
      where it is predicted without being there.
    - ``sensitivity``, ``specificity``: binary; TP / (TP + FN), TN / (TN + FP).
    - ``acc``, ``acc_top5``, ``precision``, ``recall``, ``f1``, ``auc``, ``auc_error``, ``nll``, ``ece``,
      ``agreement``, ``kl_to_teacher``, ``agreement_teacher_wrong``: those of `kdexp.metrics.classification.Metrics`,
      each pixel being a sample. A binary mask is one of two classes with the logits (0, z): precision, recall and F1
      are macro, and ECE is of the predicted class (with nearly everything background, that of the probability of 1
      would be of the background alone).

    Pixels that are ``UNLABELED`` or ``VOID`` count in the loss, agreement and kl_to_teacher alone; those that are
    ``ABSENT`` in nothing. A value that is not defined is left out of the result; NaN stands for a network whose logits
    are NaN.

    Args:
        kind: multiclass or binary.
        num_classes: C, the number of logits.
        pixels: in the split, over all ranks; it decides whether the AUC is exact. 0: exact.
        fidelity: whether `update` is given the teacher's logits.
        decisions_only: acc, acc_top5, miou, dice, image_dice, sensitivity and specificity (and the loss) alone, which
            never wait for the device: for training batches.
        sync_on_compute: False where one rank computes alone.

    Raises:
        ValueError: the multilabel kind.
    """

    def __init__(
        self,
        kind: Kind,
        num_classes: int,
        *,
        pixels: int = 0,
        fidelity: bool = False,
        decisions_only: bool = False,
        sync_on_compute: bool = True,
    ) -> None:
        super().__init__()
        if kind == "multilabel":
            raise ValueError(f"dataset.kind must be multiclass or binary for segmentation, got {kind}")
        self._kind: Kind = kind
        self._selects = fidelity or not decisions_only
        classes = 2 if kind == "binary" else num_classes
        self._loss = Mean(sync_on_compute=sync_on_compute)
        self._pixels = Metrics(
            "multiclass",
            classes,
            samples=pixels,
            fidelity=fidelity,
            accuracy_only=decisions_only,
            sync_on_compute=sync_on_compute,
        )
        self._overlap = Overlap(classes, sync_on_compute=sync_on_compute)

    @torch.no_grad()
    def update(
        self, logits: Tensor, target: Tensor, loss: Tensor | None = None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch; images of different batches may differ in size.

        Args:
            logits: (N, C, H, W), any float dtype.
            target: (N, H, W) int64; see `kdexp.contracts`.
            loss: scalar, mean over the batch's pixels.
            teacher_logits: the same shape as logits; needed when fidelity is measured.
        """
        exists = target != ABSENT
        if loss is not None:
            self._loss.update(loss.detach() * exists.sum(), exists.sum())
        label = torch.where(target < 0, UNLABELED, target).long()
        own = class_logits(logits, self._kind)
        self._overlap.update(own.argmax(1).flatten(1), label.flatten(1))
        teacher = class_logits(teacher_logits, self._kind) if teacher_logits is not None else None
        if self._selects:
            own, label = rows(own)[exists.flatten()], label[exists]
            teacher = rows(teacher)[exists.flatten()] if teacher is not None else None
            if not len(label):
                return
        self._pixels.update(own, label, teacher_logits=teacher)

    def compute(self) -> dict[str, float]:
        """The values by name, of all that was added since the last reset, on all ranks."""
        values = {"loss": float(self._loss.compute())} if self._loss.update_called else {}
        values |= self._pixels.compute()
        if "acc" not in values:  # nothing is labelled
            return values
        overlaps = self._overlap.compute()
        areas = {"dice": dice(overlaps.confusion), "image_dice": overlaps.image_dice}
        if self._kind == "binary":
            found = {name: area[1] for name, area in areas.items()}
            specificity, sensitivity = overlaps.confusion.diagonal() / overlaps.confusion.sum(1)
            found |= {"sensitivity": sensitivity, "specificity": specificity}
        else:
            found = {name: area.nanmean() for name, area in areas.items()}
        found = {"miou": iou(overlaps.confusion).nanmean(), **found}
        return values | {name: float(value) for name, value in found.items() if not value.isnan()}

    def confusion(self) -> Tensor:
        """[true][predicted] -> labelled pixels, (classes, classes) int64, two for the binary kind; for `iou`."""
        return self._overlap.compute().confusion

    def reset(self) -> None:
        """Forget all batches."""
        self._loss.reset()
        self._pixels.reset()
        self._overlap.reset()


def class_logits(logits: Tensor, kind: Kind) -> Tensor:
    """(N, C, ...) logits, one for each class: a binary mask is one of two, with the logits (0, z)."""
    return torch.cat((torch.zeros_like(logits), logits), 1) if kind == "binary" else logits


def confusions(decision: Tensor, label: Tensor, classes: int) -> Tensor:
    """Of each image [true][predicted] -> labelled pixels.

    Args:
        decision: (N, pixels) int64 class numbers.
        label: the same shape; negative where there is none.
        classes: how many.

    Returns:
        (N, classes, classes) int64.
    """
    image = torch.arange(len(label), device=label.device).unsqueeze(1)
    place = (image * classes + label.clamp(min=0)) * classes + decision
    counts = torch.zeros(len(label) * classes**2, dtype=torch.int64, device=label.device)
    counts = counts.scatter_add(0, place.flatten(), (label >= 0).long().flatten())
    return counts.view(len(label), classes, classes)


def iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, TP / (TP + FP + FN): Everingham et al. 2010, VOC challenge, section 4.

    Args:
        confusion: (..., classes, classes) of counts, [true][predicted].

    Returns:
        (..., classes); NaN of a class that is neither label nor prediction.
    """
    return iou_of(areas(confusion))


def dice(confusion: Tensor) -> Tensor:
    """Dice coefficient of each class, 2 TP / (2 TP + FP + FN), which is its F1 score: Dice 1945.

    Args:
        confusion: (..., classes, classes) of counts, [true][predicted].

    Returns:
        (..., classes); NaN of a class that is neither label nor prediction.
    """
    return dice_of(areas(confusion))


def areas(confusion: Tensor) -> Tensor:
    """Of each class the pixels that are it as label and as prediction, and those as label plus those as prediction.

    Args:
        confusion: (..., classes, classes) of counts, [true][predicted].

    Returns:
        (..., classes, 2), of its type. IoU and Dice of several images are those of the sum of their areas.
    """
    return torch.stack((confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-1) + confusion.sum(-2)), -1)


def iou_of(areas: Tensor) -> Tensor:
    """See `iou`, of (..., classes, 2) `areas`."""
    both, sizes = areas.double().unbind(-1)
    return both / (sizes - both)


def dice_of(areas: Tensor) -> Tensor:
    """See `dice`, of (..., classes, 2) `areas`."""
    both, sizes = areas.double().unbind(-1)
    return 2 * both / sizes


class Overlaps(NamedTuple):
    """How labels and predictions overlap.

    Attributes:
        confusion: (classes, classes) int64, [true][predicted], over all images.
        image_dice: (classes,) float64, mean over the images that have the class as label or prediction; NaN without
            any.
    """

    confusion: Tensor
    image_dice: Tensor


class Overlap(Metric):
    """Counts over a split and over ranks of which only sums are kept.

    Args:
        classes: how many.
        kwargs: torchmetrics' own.
    """

    total: Tensor
    dice: Tensor
    images: Tensor

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._classes = classes
        self.add_state("total", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("dice", torch.zeros(classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, decision: Tensor, label: Tensor) -> None:
        """Add a batch.

        Args:
            decision: (N, pixels) int64 class numbers.
            label: the same shape; negative where there is none.
        """
        confusion = confusions(decision, label, self._classes)
        found = dice(confusion)
        self.total += confusion.sum(0)
        self.dice += found.nansum(0)
        self.images += (~found.isnan()).sum(0)

    def compute(self) -> Overlaps:
        """Of all that was added since the last reset."""
        return Overlaps(self.total, self.dice / self.images)
