"""The feature distillation term of Chen et al. (CVPR 2022, arXiv 2203.14001).

"Knowledge Distillation with the Reused Teacher Classifier".
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, FeatureLayers, NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.feature_losses.adapters import BatchNorm
from kdexp.feature_losses.maps import Compared, classifier_of, resized, vectors
from kdexp.features import Reader
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_FACTOR = 2


def simkd(projected: Tensor, teacher_features: Tensor) -> Tensor:
    """``mean (p - t)^2`` over samples, channels and positions.

    Args:
        projected: (N, C, H, W) or (N, C), what the projector makes of the student's features.
        teacher_features: (N, C, H', W'), averaged to H x W; or (N, C). Gets no gradient.

    Returns:
        Scalar >= 0; 0 when the projected features are the teacher's.

    Raises:
        ValueError: shapes that do not fit.
    """
    patterns = "N C, N C" if projected.ndim == 2 else "N C H W, N C H' W'"
    check_shapes(patterns, "simkd", projected=projected, teacher_features=teacher_features)
    student, teacher = at_least_fp32(projected), at_least_fp32(teacher_features.detach())
    return F.mse_loss(student, resized(teacher, student.shape[2:]) if teacher.ndim == 4 else teacher)


class ReusedClassifier(nn.Module):
    """The student up to its classifier, a projector, and the teacher's classifier: what SimKD trains and deploys.

    With maps on both sides the projector is the authors': 1x1, 3x3 and 1x1 convolutions with batch norm and ReLU, at
    half of the teacher's channels (their factor 2), between the maps of the last stages. The larger map is averaged to
    the smaller before it. The classifier reads the mean of the projected maps. Where one side has no maps, or where the
    teacher's classifier does not read as many features as its last stage has channels, the projector is a linear layer
    between the penultimate features.

    Args:
        student: its network is copied.
        teacher: its classifier is copied, and frozen.

    Attributes:
        layers: where to read: ``projector`` is the only stage.

    Raises:
        ValueError: penultimate features that are to be read, and are not vectors.
    """

    def __init__(self, student: NetworkFeatures, teacher: NetworkFeatures) -> None:
        super().__init__()
        self.layers = FeatureLayers(stages=["projector"], penultimate="classifier:input", classifier="classifier")
        features = teacher.shapes[vectors("simkd", teacher)][-1]
        self.backbone = _without_classifier(student)
        own, goal = (side.shapes[side.layers.stages[-1]] for side in (student, teacher))
        if len(own) == len(goal) == 4 and goal[1] == features:
            self._path = student.layers.stages[-1]
            self._size: Sequence[int] | None = [min(sides) for sides in zip(own[2:], goal[2:], strict=True)]
            self.projector = _bottleneck(own[1], features)
        else:
            self._path, self._size = vectors("simkd", student), None
            self.projector = nn.Sequential(nn.Linear(student.shapes[self._path][-1], features))
        self.classifier = copy.deepcopy(classifier_of("simkd", teacher)).requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, ...) -> logits (N, C)."""
        # The hooks live for one call: those that stay would not survive a copy of this network.
        reader = Reader(self.backbone, [self._path])
        try:
            features = reader(inputs).features[self._path]
        finally:
            reader.close()
        projected = self.projector(features if self._size is None else resized(features, self._size))
        logits: Tensor = self.classifier(projected if self._size is None else projected.mean((2, 3)))
        return logits


def _without_classifier(student: NetworkFeatures) -> nn.Module:
    backbone = copy.deepcopy(student.network)
    last = classifier_of("simkd", replace(student, network=backbone))
    path = next(path for path, module in backbone.named_modules() if module is last)
    backbone.set_submodule(path, nn.Identity())
    return backbone


def _bottleneck(channels: int, out: int) -> nn.Sequential:
    middle = max(out // _FACTOR, 1)
    return nn.Sequential(
        nn.Conv2d(channels, middle, 1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, out, 1, bias=False),
        BatchNorm(out),
        nn.ReLU(),
    )


class SimKD(nn.Module):
    """`simkd` at the projector of the deployed network (`ReusedClassifier`), which takes the student's place.

    The paper trains with this term alone, without labels and without a soft term: the teacher's classifier is kept as
    it is. The projector is part of what is deployed, its size included. Published: weight 1. It is not 0 where the
    student's features equal the teacher's: the projector stands between.

    Args:
        pair: its student is the deployed network.

    Raises:
        ValueError: it is another one.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        network = pair.student.network
        if not isinstance(network, ReusedClassifier):
            rule = (
                "trains ReusedClassifier(pair.student, pair.teacher), and is built from a pair with that as the student"
            )
            raise ValueError(f"feature_loss=simkd {rule}, got {type(network).__name__}")
        self.student_paths = ["projector"]
        goal = vectors("simkd", pair.teacher)
        self._maps = len(pair.student.shapes["projector"]) == 4
        self.teacher_paths = [pair.teacher.layers.stages[-1], goal] if self._maps else [goal]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self._seen = False

    @staticmethod
    def deployed(student: NetworkFeatures, teacher: NetworkFeatures) -> nn.Module:
        """The network that is trained, evaluated and exported in the student's place."""
        return ReusedClassifier(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `simkd`. The batch is not used.

        Raises:
            ValueError: features of another shape; or, in the first batch, a teacher whose classifier does not read the
                mean of its last stage's maps, so that it cannot read the projected ones either.
        """
        (projected,), goals = self._compared(student, teacher)
        if self._maps and not self._seen:
            _check_mean(goals[0], goals[1], self.teacher_paths[0])
            self._seen = True
        return simkd(projected, goals[0])


def _check_mean(maps: Tensor, vectors: Tensor, path: str) -> None:
    maps, vectors = at_least_fp32(maps), at_least_fp32(vectors)
    if torch.linalg.vector_norm(maps.mean((2, 3)) - vectors) > 0.05 * torch.linalg.vector_norm(vectors):
        rule = "needs a teacher whose classifier reads the mean of its last stage's maps (see layers.stages)"
        raise ValueError(f"feature_loss=simkd {rule}, got stage {path!r}")
