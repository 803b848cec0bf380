"""Masks as the targets of a data set: what they must be."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.config.require import require
from kdexp.contracts import ABSENT, Kind, Source
from kdexp.data.splits import are_masks, check_inputs, check_number_of_samples, parts_of

_CHUNK = 64  # masks that are looked at at once


def check_masks(source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
    """See that a data set has a mask for each image, with these classes and, unless None, of this shape.

    Args:
        source: as a file of `kdexp.data` loads it.
        kind: multiclass or binary.
        num_classes: with the background; 2 for the binary kind.
        input_shape: its channels are those of all images; height and width may be those of crops. None: any.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    require(kind != "multilabel", "dataset.kind", "must be multiclass or binary for masks", kind)
    require(kind != "binary" or num_classes == 2, "dataset.num_classes", "must be 2 with kind=binary", num_classes)
    names = source.classes
    if names is not None:
        rule = f"must be {len(names)}, the classes in the data ({', '.join(names)})"
        require(len(names) == num_classes, "dataset.num_classes", rule, num_classes)
    for part, (inputs, masks) in parts_of(source).items():
        check_inputs(part, inputs, None)
        shape = list(inputs[0].shape)
        rule = f"must have the channels of an image of {part}, of shape {shape}"
        require(input_shape is None or shape[0] == input_shape[0], "dataset.input_shape", rule, input_shape)
        found = f"targets of shape {list(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
        rule = f"must give masks (N, H, W) of whole numbers in {part}, for task=segmentation"
        require(are_masks(masks), "dataset.source", rule, found)
        check_number_of_samples(part, inputs, masks)
        size = list(masks.shape[1:])
        rule = f"must give masks of the size of their images in {part}"
        require(shape[1:] == size, "dataset.source", rule, f"images {shape} and masks {size}")
        values = classes_in(masks)
        known = all(ABSENT <= value < num_classes for value in values)
        rule = f"must give masks of 0..{num_classes - 1}, -1, -2 and -3 in {part}"
        require(known, "dataset.source", rule, f"values {values}")
        if part == "train":
            missing = [number for number in range(num_classes) if number not in values]
            named = ", ".join(names[number] if names is not None else str(number) for number in missing)
            rule = "must have every class in some mask of train"
            require(not missing, "dataset.source", rule, f"no pixel of {named}")


def classes_in(masks: Tensor) -> list[int]:
    """The values that occur, ascending."""
    found: set[int] = set()
    for part in torch.split(masks, _CHUNK):
        found.update(torch.unique(part).tolist())
    return sorted(found)
