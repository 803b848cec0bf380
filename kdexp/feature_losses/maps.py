"""What the representation losses share: which layers are compared, and how two shapes are brought together."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Pair, Side


def matched_stages(pair: Pair) -> list[tuple[str, str]]:
    """(student path, teacher path) of the stages that correspond, from input to output.

    Networks with different numbers of stages are matched from the output on: their last stages correspond, and so on
    until the shorter one has no more.
    """
    student, teacher = pair.student.layers.stages, pair.teacher.layers.stages
    both = min(len(student), len(teacher))
    return list(zip(student[-both:], teacher[-both:], strict=True))


def as_maps(features: Tensor) -> Tensor:
    """Features as maps (N, C, H, W): sequences (N, L, F) become (N, F, L, 1), vectors (N, F) become (N, F, 1, 1)."""
    if features.ndim == 3:
        return features.transpose(1, 2).unsqueeze(3)
    return features[:, :, None, None] if features.ndim == 2 else features


def map_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The shape that `as_maps` gives to features of this shape."""
    if len(shape) == 3:
        return shape[0], shape[2], shape[1], 1
    if len(shape) == 2:
        return shape[0], shape[1], 1, 1
    n, channels, height, width = shape
    return n, channels, height, width


def need_positions(method: str, side: Side, path: str) -> None:
    """Refuse a layer without positions, for a method that compares them.

    Raises:
        ValueError: what is read at the path is one vector a sample.
    """
    *_, height, width = map_shape(side.shapes[path])
    if height * width < 2:
        shape = tuple(side.shapes[path][1:])
        raise ValueError(f"feature_loss={method} needs maps or sequences, got vectors {shape} from layer {path!r}")


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, H, W) at another size (H', W'): the mean of what falls together, or bilinear between points.

    A side that shrinks is averaged (adaptively), one that grows is interpolated.
    """
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
        self.convolution = nn.Conv2d(map_shape(source)[1], channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W), (N, L, F) or (N, F) to maps (N, C', H', W') of the goal's shape."""
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
    """Vectors (..., F) at length 1; a vector of zeros stays one, with a gradient that is finite.

    `torch.nn.functional.normalize` multiplies the gradient of a zero vector by 1e12.
    """
    lengths = vectors.norm(dim=-1, keepdim=True)
    scaled: Tensor = vectors / lengths.where(lengths > 0, 1)
    return scaled
