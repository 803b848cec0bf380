"""What the feature distillation losses share: which layers are compared, and how two shapes are brought together."""

import logging
from collections.abc import Sequence
from functools import cache

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.features import find
from kdexp.losses.shapes import check_shapes

log = logging.getLogger(__name__)


def matched_stages(pair: TeacherStudentPair) -> list[tuple[str, str]]:
    """(student path, teacher path) of the stages that correspond, from input to output.

    Networks with different numbers of stages are matched from the output on: their last stages correspond, and so on
    until the shorter one has no more.
    """
    student, teacher = pair.student.layers.stages, pair.teacher.layers.stages
    both = min(len(student), len(teacher))
    return list(zip(student[-both:], teacher[-both:], strict=True))


def stages_with_positions(method: str, pair: TeacherStudentPair) -> list[tuple[str, str]]:
    """The `matched_stages` that have positions to compare; the others are left out, and named once.

    Args:
        method: for messages.
        pair: what the loss is built from.

    Raises:
        ValueError: all of them give a single position or vectors.
    """
    stages = matched_stages(pair)
    kept = [(own, goal) for own, goal in stages if _have_positions(pair.student.shapes[own], pair.teacher.shapes[goal])]
    if not kept:
        rule = "needs a stage of maps or sequences with at least 2 positions in both networks"
        last = zip(("student", "teacher"), (pair.student, pair.teacher), stages[-1], strict=True)
        found = " and ".join(f"{tuple(side.shapes[path][1:])} from the {name}'s {path!r}" for name, side, path in last)
        raise ValueError(f"feature_loss={method} {rule}, got {found}")
    left = ", ".join(f"{own} (teacher's {goal})" for own, goal in stages if (own, goal) not in kept)
    if left:
        _log_once(f"feature_loss={method} compares positions and leaves out the stages that have a single one: {left}")
    return kept


def _have_positions(*shapes: Sequence[int]) -> bool:
    height, width = (min(map_shape(shape)[side] for shape in shapes) for side in (2, 3))
    return height * width > 1


@cache
def _log_once(message: str) -> None:
    """Say it once in a process: a loss is built several times for a run."""
    log.warning("%s", message)


def layer_pattern(shape: Sequence[int]) -> str:
    """For `check_shapes`: features of a layer for any batch. Channels stay what they are, other sizes may change.

    Args:
        shape: (N, C, H, W), (N, L, F) or (N, F) of this layer.
    """
    words = ["N", *["any"] * (len(shape) - 1)]
    channel = 2 if len(shape) == 3 else 1
    return " ".join([*words[:channel], *map(str, shape[channel : channel + 1]), *words[channel + 1 :]])


class Compared:
    """Takes out of both networks' outputs the features that a loss compares.

    Args:
        pair: what the loss is built from.
        student_paths: of the student's features.
        teacher_paths: of the teacher's.
    """

    def __init__(self, pair: TeacherStudentPair, student_paths: Sequence[str], teacher_paths: Sequence[str]) -> None:
        self._student_paths, self._teacher_paths = student_paths, teacher_paths
        self._patterns = {("student", path): layer_pattern(pair.student.shapes[path]) for path in student_paths}
        self._patterns |= {("teacher", path): layer_pattern(pair.teacher.shapes[path]) for path in teacher_paths}

    def __call__(self, student: Outputs, teacher: Outputs) -> tuple[list[Tensor], list[Tensor]]:
        """The student's features and the teacher's, in the order of their paths.

        Raises:
            ValueError: features with other dimensions or channels than those that the loss was built for, or not all
                of the same samples.
        """
        found = {"student": student.features, "teacher": teacher.features}
        named = {f"{network}.features[{path!r}]": found[network][path] for network, path in self._patterns}
        check_shapes(", ".join(self._patterns.values()), **named)
        own = [student.features[path] for path in self._student_paths]
        return own, [teacher.features[path] for path in self._teacher_paths]


def check_stages(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> None:
    """Refuse what is not maps of two or more stages of two networks, with the same channels.

    Args:
        student_maps: (N, C_i, H_i, W_i).
        teacher_maps: (N, C_i, H_i', W_i'), as many.

    Raises:
        ValueError: shapes or numbers of stages that do not fit.
    """
    if len(student_maps) < 2 or len(student_maps) != len(teacher_maps):
        found = f"{len(student_maps)} and {len(teacher_maps)}"
        raise ValueError(f"student_maps and teacher_maps must be of the same number of stages, at least 2, got {found}")
    patterns: list[str] = []
    named: dict[str, Tensor] = {}
    for i, (own, goal) in enumerate(zip(student_maps, teacher_maps, strict=True)):
        patterns += [f"N C_{i} any any"] * 2
        named |= {f"student_maps[{i}]": own, f"teacher_maps[{i}]": goal}
    check_shapes(", ".join(patterns), **named)


def check_positions(size: Sequence[int]) -> None:
    """Refuse maps of a size (H, W) that leaves nothing to compare between positions.

    Raises:
        ValueError: a single position.
    """
    height, width = size
    if height * width < 2:
        raise ValueError(f"student_maps and teacher_maps must have at least 2 positions, got {height} x {width}")


def as_maps(features: Tensor) -> Tensor:
    """Features as maps (N, C, H, W): sequences become (N, F, L, 1), vectors (N, F, 1, 1).

    Args:
        features: (N, C, H, W), (N, L, F) or (N, F).

    Raises:
        ValueError: another number of dimensions.
    """
    map_shape(features.shape)
    if features.ndim == 3:
        return features.transpose(1, 2).unsqueeze(3)
    return features[:, :, None, None] if features.ndim == 2 else features


def map_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The shape that `as_maps` gives to features of this shape.

    Raises:
        ValueError: a shape of another number of dimensions.
    """
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"features must have shape (N, C, H, W), (N, L, F) or (N, F), got {tuple(shape)}")
    if len(shape) == 3:
        return shape[0], shape[2], shape[1], 1
    if len(shape) == 2:
        return shape[0], shape[1], 1, 1
    n, channels, height, width = shape
    return n, channels, height, width


def vectors(method: str, side: NetworkFeatures) -> str:
    """The path of a network's penultimate features, for a method that needs one vector a sample.

    Raises:
        ValueError: it has none, or what its classifier reads has positions.
    """
    path, rule = side.layers.penultimate, "needs vectors from feature_layers.penultimate"
    if path is None:
        raise ValueError(f"feature_loss={method} {rule}, got none in {type(side.network).__name__}")
    shape = tuple(side.shapes[path][1:])
    if len(shape) != 1:
        raise ValueError(f"feature_loss={method} {rule}, got {shape} from {path!r}")
    return path


def classifier_of(method: str, side: NetworkFeatures) -> nn.Module:
    """A network's classifier, for a method that uses it.

    Raises:
        ValueError: it has none.
    """
    path = side.layers.classifier
    if path is None:
        name = type(side.network).__name__
        raise ValueError(f"feature_loss={method} needs feature_layers.classifier, got none in {name}")
    return find(side.network, path)


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps at another size (H', W'): the mean of what falls together, or bilinear between points.

    A side that shrinks is averaged (adaptively), one that grows is interpolated.

    Args:
        maps: (N, C, H, W).
        size: (H', W').

    Raises:
        ValueError: maps without these dimensions.
    """
    check_shapes("N C H W", maps=maps)
    height, width = maps.shape[2:]
    smaller = (min(height, size[0]), min(width, size[1]))
    if smaller != (height, width):
        maps = F.adaptive_avg_pool2d(maps, smaller)
    if smaller != tuple(size):
        maps = F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
    return maps


class Regressor(nn.Module):
    """A trained adapter: features of one shape to maps of another's, by a resize and a 1x1 convolution.

    Args:
        source: shape of the features that come, with the batch, in any of the forms of `as_maps`.
        goal: shape of the features that they are to be compared with.
    """

    def __init__(self, source: Sequence[int], goal: Sequence[int]) -> None:
        super().__init__()
        _, channels, *self._size = map_shape(goal)
        self._pattern = layer_pattern(source)
        self.convolution = nn.Conv2d(map_shape(source)[1], channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C', H', W') of the goal's shape.

        Args:
            features: (N, C, H, W), (N, L, C) or (N, C), as the source is, of any size.

        Raises:
            ValueError: another number of dimensions or channels than the source's.
        """
        check_shapes(self._pattern, features=features)
        maps: Tensor = self.convolution(resized(as_maps(features), self._size))
        return maps


def to_channels(source: Sequence[int], goal: Sequence[int]) -> nn.Module:
    """A trained 1x1 convolution to the goal's channels at the source's size; nothing where the channels agree.

    Args:
        source: shape of the student's features, with the batch, in any of the forms of `as_maps`.
        goal: shape of the teacher's.
    """
    samples, channels, *size = map_shape(source)
    wanted = map_shape(goal)[1]
    return nn.Identity() if channels == wanted else Regressor(source, (samples, wanted, *size))


def unit(vectors: Tensor) -> Tensor:
    """Vectors at length 1; a vector of zeros stays one, with a gradient that is finite.

    `torch.nn.functional.normalize` multiplies the gradient of a zero vector by 1e12.

    Args:
        vectors: (*, F).
    """
    lengths = vectors.norm(dim=-1, keepdim=True)
    scaled: Tensor = vectors / lengths.where(lengths > 0, 1)
    return scaled
