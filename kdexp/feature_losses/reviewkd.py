"""The feature loss of Chen et al., "Distilling Knowledge via Knowledge Review" (CVPR 2021, arXiv 2104.09044)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.feature_losses.adapters import BatchNorm
from kdexp.feature_losses.maps import Compared, as_maps, map_shape
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_LEVELS = (4, 2, 1)


def hcl(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """Hierarchical context loss: squared errors of the maps and of their means over 4 x 4, 2 x 2 and 1 x 1 cells.

    ``(mse + mse_4 / 2 + mse_2 / 4 + mse_1 / 8) / (1 + 1/2 + 1/4 + 1/8)``, each a mean over all entries. A level that
    the maps are too small to be averaged to is left out of both sums, and the next one has its factor.

    Args:
        student_maps: (N, C, H, W), fused.
        teacher_maps: the same shape; gets no gradient.

    Returns:
        Scalar >= 0; 0 when the maps are equal.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H W", "reviewkd", student_maps=student_maps, teacher_maps=teacher_maps)
    student, teacher = at_least_fp32(student_maps), at_least_fp32(teacher_maps.detach())
    height, width = student.shape[2:]
    loss, factor, total = F.mse_loss(student, teacher), 1.0, 1.0
    for level in _LEVELS:
        cells = (min(level, height), min(level, width))
        if cells == (height, width):
            continue
        factor /= 2
        pooled = [F.adaptive_avg_pool2d(maps, cells) for maps in (student, teacher)]
        loss = loss + factor * F.mse_loss(pooled[0], pooled[1])
        total += factor
    return loss / total


class Fusion(nn.Module):
    """Attention-based fusion of a stage with what has been fused of the deeper ones.

    Args:
        channels: of the stage.
        middle: of what is handed on to the stage before.
        out: of the teacher's stage.
        deeper: whether there are deeper stages.
    """

    def __init__(self, channels: int, middle: int, out: int, deeper: bool) -> None:
        super().__init__()
        self._channels, self._middle = channels, middle
        self.enter = nn.Sequential(_convolution(channels, middle, 1), BatchNorm(middle))
        self.leave = nn.Sequential(_convolution(middle, out, 3), BatchNorm(out))
        self.attention = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if deeper else None

    def forward(self, maps: Tensor, fused: Tensor | None, size: list[int]) -> tuple[Tensor, Tensor]:
        """The fused stage (N, out, H'', W''), and what is handed on (N, middle, H'', W'').

        Args:
            maps: (N, channels, H, W), the stage.
            fused: (N, middle, H', W'), what was handed on; None where there is no deeper stage.
            size: (H'', W'') of the teacher's stage.

        Raises:
            ValueError: shapes that do not fit.
        """
        check_shapes(f"N {self._channels} H W", maps=maps)
        if fused is not None:
            check_shapes(f"N any any any, N {self._middle} H W", maps=maps, fused=fused)
        maps = self.enter(maps)
        if self.attention is not None and fused is not None:
            fused = F.interpolate(fused, maps.shape[2:], mode="nearest")
            shares = self.attention(torch.cat((maps, fused), 1))
            maps = maps * shares[:, :1] + fused * shares[:, 1:]
        maps = F.interpolate(maps, size, mode="nearest")
        return self.leave(maps), maps


def _convolution(channels: int, out: int, kernel: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    return layer


class ReviewKD(nn.Module):
    """The sum of `hcl` between the teacher's stages and the student's, each fused with all deeper ones.

    From the output back: a stage goes through a 1x1 convolution with batch norm; a 1x1 convolution with sigmoid says
    of each position what counts of it and what of the fused deeper stages; the mix is handed on, and goes through a
    3x3 convolution with batch norm to the teacher's channels. Sizes are changed by repeating or leaving out
    positions. Stages are those of the student and its penultimate features as maps of one position, against those of
    the teacher before the activation (as in the authors' CIFAR-100 code; after it where there are no such layers) and
    its penultimate features. Where the numbers of stages differ the last ones are matched; the authors' code has a
    table of networks. Sequences are maps of width 1.

    Published: weight 1 (resnet110 -> 32), 0.6 (resnet56 -> 20), 5 (resnet32x4 -> 8x4, all from wrn_40_2), 8
    (resnet32x4 -> shufflenetv2), rising over the first 20 epochs. (The authors' first epoch has weight 0; kdexp counts
    it as 1 / 20.) It is not 0 where the student's features equal the teacher's: they are fused first.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        own = _with_penultimate(pair.student, pair.student.layers.stages)
        goal = _with_penultimate(pair.teacher, pair.teacher.layers.preact or pair.teacher.layers.stages)
        both = min(len(own), len(goal))
        self.student_paths, self.teacher_paths = own[-both:], goal[-both:]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        channels = [map_shape(pair.student.shapes[path])[1] for path in self.student_paths]
        goals = [map_shape(pair.teacher.shapes[path]) for path in self.teacher_paths]
        middle = min(512, channels[-1])
        self._sizes = [[height, width] for _, _, height, width in goals]
        self.fusions = nn.ModuleList(
            Fusion(width, middle, shape[1], deeper=i < both - 1)
            for i, (width, shape) in enumerate(zip(channels, goals, strict=True))
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `hcl`. The batch is not used."""
        fused: Tensor | None = None
        terms = []
        own, goals = self._compared(student, teacher)
        for i in reversed(range(len(self.fusions))):
            reviewed, fused = self.fusions[i](as_maps(own[i]), fused, self._sizes[i])
            terms.append(hcl(reviewed, as_maps(goals[i])))
        return torch.stack(terms).sum()


def _with_penultimate(side: NetworkFeatures, stages: Sequence[str]) -> list[str]:
    path = side.layers.penultimate
    # The last hidden layer of an MLP is its last stage and its penultimate features.
    return [*stages] if path is None or path in side.layers.stages else [*stages, path]
