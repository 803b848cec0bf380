"""The few types that cross module walls.

Shapes everywhere in kdexp: N batch, C classes, H W space, L sequence, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

SplitName = Literal["train", "val", "test"]

Capability = Literal["curves", "masks", "texts", "images", "robustness", "attacks"]
"""What some tasks can and others cannot.

curves: ROC curves and a confusion matrix, of rows that are classified.
masks: pictures of a few test images, their masks and those that the networks predict; targets are masks.
texts: inputs are texts, and pictures are of a few that the networks read differently.
images: pictures of what the networks make of a few test images, and of what they make up; targets are images.
robustness: the robustness report, for which `Task.records` and `Task.measure_of` are needed.
attacks: training on adversarial examples.
"""

Kind = Literal["multiclass", "binary", "multilabel"]
"""What the logits mean.

multiclass: (N, C) logits, softmax, target (N,) int64 class numbers.
binary:     (N, 1) logits, sigmoid, target (N,) int64 in {0, 1}; losses take (N, 1) and other types as well.
multilabel: (N, C) logits, sigmoid, target (N, C) float32 in {0, 1}.
"""

UNLABELED = -1
"""The target of a sample whose label is missing: it feeds the soft term alone."""

VOID = -2
"""The target of a pixel whose label the data set withholds: it is in no metric, and in the soft term only if asked for.

Masks alone have it, as they have `ABSENT`: they are (N, H, W) of class numbers, `UNLABELED`, VOID and `ABSENT`.
"""

ABSENT = -3
"""The target of a pixel that does not exist: padding, what lies outside a camera's field of view, a border that a
rotation invented. It is in no term and in no metric."""


@dataclass
class Batch:
    """One batch, as the loaders yield it.

    Attributes:
        inputs: (N, ...), uint8 images in 0..255 or floats as stored; float and normalised once it reaches the model.
            Texts are (N, L) int32 Unicode code points, 0 after their end, and stay what they are.
        target: see `Kind`; ``UNLABELED`` where there is no label (the whole row in multi-label data).
            After mixup a multiclass target is float32 (N, C): a row is the mix of the one-hot labels, and its sum
            is the fraction of the mixed sample that is labelled (1 where both partners are, 0 where neither is).
        index: (N,) int64, the sample's stable id in its data set, independent of order, subset and epoch; (0,) where
            the loader gives none.
        step: where gradients are accumulated, the targets of all batches of the optimizer's step, of this one, too;
            else empty.
    """

    inputs: Tensor
    target: Tensor
    index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    step: Sequence[Tensor] = ()

    def known_index(self, wanted_by: str) -> Tensor:
        """The index, for what cannot do without.

        Args:
            wanted_by: its name, for the message.

        Raises:
            ValueError: the loader gives none.
        """
        if not self.index.numel():
            rule = "must be (x, y, index), index being each sample's number in the training data, int64"
            raise ValueError(f"a batch {rule}, for {wanted_by}, got (x, y)")
        return self.index


class Outputs(NamedTuple):
    """What a network gave for a batch.

    Attributes:
        logits: (N, C) or dense (N, C, ...).
        features: module path -> that module's output; empty unless a feature loss reads it.
        network: itself, for a task that runs a part of it once more; None of the teacher, whose outputs may be cached.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = {}
    network: nn.Module | None = None


class TaskMetrics(Protocol):
    """The metrics of one split: an `nn.Module` with these, synchronised over ranks when they are computed."""

    def update(
        self, logits: Tensor, target: Tensor, loss: Tensor | None = None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            logits: (N, C, ...), the student's.
            target: see `Batch`.
            loss: scalar, mean over the batch's rows.
            teacher_logits: the same shape as logits; needed when fidelity is measured.
        """

    def compute(self) -> dict[str, float]:
        """The values by name, of all that was added since the last reset."""

    def reset(self) -> None:
        """Forget all batches."""

    def to(self, device: torch.device) -> Self:
        """Move what was added; see `nn.Module`."""


class Task(Protocol):
    """What a batch becomes: rows (whatever gets one prediction: a sample, a pixel, a token), two terms, metrics.

    Both terms are means over rows: the hard one over those with a label, the soft one over all that exist. So alpha and
    T mean the same in every task.

    It may also have
    - ``tiles`` (`kdexp.models.tiles.Tiles` or None): networks are evaluated on larger images in tiles;
    - ``own_targets(source: Source) -> Source``: the data set with the task's own targets in place of its labels;
    - ``of_network(network: nn.Module, batches: Iterable[Batch]) -> dict[str, float]``: more metrics of test;
    - ``pictures(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]``, with `images` in supports: what it
      makes of images, and as many that it makes up, (n, P) in [0, 1];
    - ``networks(input_shape: Sequence[int]) -> Sequence[str]``: options of conf/student that fit, for messages;
    - ``of_test``: names of its settings on which no training depends;
    - ``compares``: what soft losses compare where that is not rows of logits; a loss has an attribute of that name.

    Attributes:
        kind: how one row of logits is read.
        num_outputs: C, the number of logits of a row.
        measure: the metric that runs are compared by in tables and figures: ``acc``. Its unit, and which direction of
            it is better, are those of `kdexp.report.glossary`; of a name that is not there, as it is, and higher.
        monitor: the metric of val that the best epoch is chosen by where nothing else is set: ``val/acc``.
        supports: see `Capability`.
    """

    @property
    def kind(self) -> Kind:
        """See above."""

    @property
    def num_outputs(self) -> int:
        """See above."""

    @property
    def measure(self) -> str:
        """See above."""

    @property
    def monitor(self) -> str:
        """See above."""

    @property
    def supports(self) -> frozenset[Capability]:
        """See above."""

    def check_source(self, source: "Source", kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
        """See that a data set's targets are those of the task.

        Args:
            source: the data set.
            kind: see `Kind`.
            num_classes: the classes that it is to have.
            input_shape: the shape that a sample is to have; None: any.

        Raises:
            ValueError: they are not; one line with the setting, the rule and the value.
        """

    def logits_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one sample's logits.

        Args:
            input_shape: of one sample, without N.
        """

    def hard(self, student: Outputs, batch: Batch) -> Tensor:
        """The hard term: a scalar; 0 (with a gradient of 0) when nothing is labelled."""

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The soft term: a scalar.

        Args:
            loss: ``forward(student_logits, teacher_logits, target)``, a mean over rows.
            student: with gradients.
            teacher: for the same batch, without.
            batch: what both networks saw.
        """

    def metrics(
        self, *, split: "Split | None" = None, fidelity: bool = False, of_training: bool = False, alone: bool = False
    ) -> "TaskMetrics":
        """Metrics of a split, with nothing in them yet.

        Args:
            split: all of it, over all ranks; None: not known.
            fidelity: whether `TaskMetrics.update` is given the teacher's logits.
            of_training: of the batches of a training: what never waits for the device.
            alone: for an evaluation that only one rank does.
        """

    @property
    def record(self) -> str:
        """The name of what `records` gives, in files of what was measured: ``right``."""

    def records(self, logits: Tensor, target: Tensor) -> Tensor:
        """What is kept of each sample, so that the measure of any set of samples follows from the mean of theirs.

        Args:
            logits: (N, C, ...).
            target: see `Batch`; all or some labels may be missing.

        Returns:
            (N, ...) float32; or int64, for counts that are to be summed exactly.
        """

    def measure_of(self, mean: Tensor) -> Tensor:
        """The measure of sets of samples.

        Args:
            mean: (..., *shape of a record) float64, the mean of the records of each set.

        Returns:
            (...) float64; NaN where it is not defined.
        """


@dataclass(frozen=True)
class FeatureLayers:
    """Where a network's representations are read: module paths (see `kdexp.features`).

    Attributes:
        stages: what each stage gives after its last activation, from input to output.
        preact: the same before that activation; empty for a network that has no such modules.
        penultimate: (N, F), what the classifier reads; None: a dense network need not have it.
        classifier: the last linear layer; None: likewise.
        mask: of sequences of different lengths: (N, L) float, 1 where there is a token, 0 at padding; None: no padding.
    """

    stages: Sequence[str]
    penultimate: str | None
    classifier: str | None
    preact: Sequence[str] = ()
    mask: str | None = None


@runtime_checkable
class SeesTrainingInputs(Protocol):
    """A module of a network that is shown the training split's inputs once, before its training: for a vocabulary."""

    def prepare(self, inputs: Tensor) -> None:
        """Look at (N, ...) inputs as they are stored. It is not called where all weights come from a file."""


@dataclass(frozen=True)
class NetworkFeatures:
    """What a feature loss is told of the student or of the teacher when it is built.

    Attributes:
        network: itself; to read its classifier from, not to be trained or changed by the loss.
        layers: where to read.
        shapes: path -> shape of what is read there for a batch of two: (2, C, H, W) maps, (2, L, F) sequences or
            (2, F) vectors. All the paths of `layers` except the classifier's; and of the logits, at the path "".
    """

    network: nn.Module
    layers: FeatureLayers
    shapes: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class TeacherStudentPair:
    """What a feature loss is built from.

    Attributes:
        student: see `NetworkFeatures`.
        teacher: see `NetworkFeatures`.
        target: (samples,) int64, or (samples, C) for multi-label data: the label of each training sample at the place
            of its `Batch.index`; ``UNLABELED`` where it is hidden or the sample is not in the training split; (0,)
            where nobody said it.
        num_outputs: C.
    """

    student: NetworkFeatures
    teacher: NetworkFeatures
    target: Tensor
    num_outputs: int


class FeatureLoss(Protocol):
    """A feature distillation loss: an `nn.Module` with these, built from a `TeacherStudentPair` and its own settings.

    It may also have ``on_epoch(epoch: int)``, called before each epoch, ``in_init_stage: bool``, set before each epoch
    to whether the term trains alone (see `kdexp.training.terms.Term`), and a static ``deployed(student:
    NetworkFeatures, teacher: NetworkFeatures) -> nn.Module``: the network that is trained, evaluated and exported in
    the student's place; the loss is then built from a `TeacherStudentPair` whose student is that network.

    Attributes:
        student_paths: the modules of the student whose outputs the loss reads.
        teacher_paths: the same of the teacher.
    """

    student_paths: Sequence[str]
    teacher_paths: Sequence[str]

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """The scalar term, before its weight.

        Args:
            student: logits, and features at `student_paths`, with gradients.
            teacher: logits, and features at `teacher_paths`, without.
            batch: what both networks saw; only some losses need it, and refuse None.

        Raises:
            ValueError: features of other channels or numbers of dimensions than in the pair, or of other samples than
                each other.
        """


class Images(Protocol):
    """Samples that are read one at a time because they do not fit in memory."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Tensor:
        """One (C, H, W) uint8 image; C, H, W are the same for every sample."""

    def fingerprint(self, store: Path) -> str:
        """Changes when the samples do, and not when their files are copied (`kdexp.data.content.of_files`).

        Args:
            store: ``store_dir``, where what takes long to find out can be remembered.
        """


@dataclass(frozen=True)
class Source:
    """A data set as its file in `kdexp.data` loads it, before it is split.

    Attributes:
        train_inputs: (N, C, H, W) uint8 or (N, ...) float32, in memory; or `Images` that stream. Texts: see `Batch`.
        train_target: (N,) int64; (N, C) float32 for multi-label data; masks (N, H, W) int8 or int64;
            images (N, C, H, W), uint8 or float32.
        test_inputs: like train_inputs.
        test_target: like train_target.
        val: an official validation part (inputs, target), or None: then it is carved from train.
        classes: their names by number, where the data have them, as a folder of images has; None: `dataset.classes`.
        groups: names, and (N,) int64, which of them each test sample is of; None: there are none.
        columns: of the table that inputs (N, F) come from, each a `kdexp.data.table.TableColumn`; None: there is none.
    """

    train_inputs: Tensor | Images
    train_target: Tensor
    test_inputs: Tensor | Images
    test_target: Tensor
    val: tuple[Tensor | Images, Tensor] | None = None
    classes: Sequence[str] | None = None
    groups: tuple[Sequence[str], Tensor] | None = None
    columns: Sequence[tuple[str, Sequence[str] | None, Sequence[float] | None]] | None = None


@dataclass(frozen=True)
class Split:
    """One part (train, val or test) of a data set.

    Attributes:
        inputs: all samples of the file it comes from: a tensor or `Images`; not copied for a subset.
        target: (n,), (n, C), masks (n, H, W) or images (n, C, H, W), parallel to index: after label noise and hiding.
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
