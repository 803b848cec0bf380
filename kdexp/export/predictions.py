"""What a student says of samples: labels, probabilities, confidences; of images with masks a class for each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdexp.contracts import Kind
from kdexp.metrics.rows import decisions


@dataclass(frozen=True)
class Predictions:
    """Of N samples.

    Attributes:
        numbers: (N,) int64, the class of each; of several labels a sample (N, C) int64, 0 or 1.
        probabilities: (N, classes) float32, of the binary kind (N, 2); of several labels each for itself.
        confidences: (N,) float32, the probability of what was predicted; of several labels that of the least sure one.
        classes: names by number.
    """

    numbers: Tensor
    probabilities: Tensor
    confidences: Tensor
    classes: Sequence[str]

    def __len__(self) -> int:
        """N."""
        return len(self.numbers)

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """The name of each sample's class; of several labels the names of those that it has."""
        if self.numbers.dim() == 1:
            return [self.classes[number] for number in self.numbers.tolist()]
        return [[name for name, is_on in zip(self.classes, row, strict=True) if is_on] for row in self.numbers.tolist()]


@dataclass(frozen=True)
class Masks:
    """Of N images, which may be of several sizes.

    Attributes:
        masks: (H, W) uint8 each, the class of each pixel.
        confidences: (H, W) float32 each, the probability of that class.
        classes: names by number.
    """

    masks: Sequence[Tensor]
    confidences: Sequence[Tensor]
    classes: Sequence[str]

    def __len__(self) -> int:
        """N."""
        return len(self.masks)


def probabilities(logits: Tensor, kind: Kind) -> Tensor:
    """Of each class.

    Args:
        logits: (N, C, ...).
        kind: what they mean.

    Returns:
        (N, C, ...) float32; of the binary kind (N, 2, ...).
    """
    if kind == "multiclass":
        return logits.float().softmax(1)
    on = logits.float().sigmoid()
    return torch.cat((1 - on, on), 1) if kind == "binary" else on


def predictions(logits: Tensor, kind: Kind, classes: Sequence[str]) -> Predictions:
    """Of (N, C) logits; for the rest see `Predictions`."""
    found, chosen = probabilities(logits, kind), decisions(logits, kind)
    if kind == "multilabel":
        return Predictions(chosen, found, torch.where(chosen == 1, found, 1 - found).amin(1), classes)
    numbers = chosen.flatten()
    return Predictions(numbers, found, found.gather(1, numbers[:, None])[:, 0], classes)


def masks(logits: Tensor, kind: Kind, classes: Sequence[str]) -> Masks:
    """Of (N, C, H, W) logits; for the rest see `Masks`."""
    numbers = decisions(logits, kind).view(len(logits), *logits.shape[2:])
    confidences = probabilities(logits, kind).gather(1, numbers[:, None])[:, 0]
    return Masks(list(numbers.to(torch.uint8)), list(confidences), classes)


def joined(parts: Sequence[Predictions | Masks]) -> Predictions | Masks:
    """Those of several batches, one after the other."""
    classes = parts[0].classes
    of_masks = [part for part in parts if isinstance(part, Masks)]
    if of_masks:
        confidences = [one for part in of_masks for one in part.confidences]
        return Masks([one for part in of_masks for one in part.masks], confidences, classes)
    rows = [part for part in parts if isinstance(part, Predictions)]
    numbers, found, sure = (
        torch.cat([getattr(part, name) for part in rows]) for name in ("numbers", "probabilities", "confidences")
    )
    return Predictions(numbers, found, sure, classes)
