"""The few types that cross module walls.

Shapes everywhere in kdexp: N batch, C classes, H W space, L sequence, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Task = Literal["multiclass", "binary", "multilabel"]
"""What the logits mean.

multiclass: (N, C) logits, softmax, target (N,) int64 class numbers.
binary:     (N, 1) logits, sigmoid, target (N,) int64 in {0, 1}.
multilabel: (N, C) logits, sigmoid, target (N, C) float32 in {0, 1}.
"""

UNLABELED = -1
"""The target of a sample whose label is missing: it feeds the soft term alone."""


@dataclass
class Batch:
    """One batch, as the loaders yield it.

    Attributes:
        inputs: (N, ...), uint8 images in 0..255 or floats as stored; float and normalised once it reaches the model.
        target: see `Task`; ``UNLABELED`` where there is no label (the whole row in multi-label data).
            After mixup a multiclass target is float32 (N, C): a row is the mix of the one-hot labels, and its sum
            is the share of the mixed sample that is labelled (1 where both partners are, 0 where neither is).
        index: (N,) int64, the sample's stable id in its data set, independent of order, subset and epoch.
    """

    inputs: Tensor
    target: Tensor
    index: Tensor


class Outputs(NamedTuple):
    """What a network gave for a batch.

    Attributes:
        logits: (N, C) or dense (N, C, ...).
        features: module path -> that module's output; empty unless a feature loss asked for it.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = {}


class Images(Protocol):
    """Samples that are read one at a time because they do not fit in memory."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Tensor:
        """One (C, H, W) uint8 image; C, H, W are the same for every sample."""
        ...

    def fingerprint(self) -> str:
        """Changes when the samples do; cheap (names, sizes and times of the files, not their content)."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set as its file in `kdexp.data` loads it, before it is split.

    Attributes:
        train_inputs: (N, C, H, W) uint8 or (N, ...) float32, held in memory; or `Images` that stream.
        train_target: (N,) int64, or (N, C) float32 for multi-label data.
        test_inputs: like train_inputs.
        test_target: like train_target.
        val: an official validation part (inputs, target), or None: then it is carved from train.
    """

    train_inputs: Tensor | Images
    train_target: Tensor
    test_inputs: Tensor | Images
    test_target: Tensor
    val: tuple[Tensor | Images, Tensor] | None = None


@dataclass(frozen=True)
class Split:
    """One part (train, val or test) of a data set.

    Attributes:
        inputs: all samples of the file it comes from: a tensor or `Images`; not copied for a subset.
        target: (n,) or (n, C), parallel to index: after label noise and hiding.
        index: (n,) int64, positions in inputs; also the samples' stable ids.
    """

    inputs: Tensor | Images
    target: Tensor
    index: Tensor

    def __len__(self) -> int:
        """Number of samples in this part."""
        return len(self.index)


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set."""

    train: Split
    val: Split
    test: Split
