"""The feature distillation term of Lee, Kim and Song (ECCV 2018, arXiv 1807.06819).

"Self-supervised Knowledge Distillation Using Singular Value Decomposition".
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, check_stages, map_shape, matched_stages, to_channels
from kdexp.losses.dtype import at_least_fp32

_MORE = 3  # vectors of the student, from which those nearest to the teacher's are chosen
_LEAST = 1e-6  # fraction of a map's energy below which a singular vector is rounding, and counts as zero
_GAP = 1e-4  # difference of two such shares below which the gradient between their vectors fades out


def kdsvd(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], *, k: int = 1) -> Tensor:
    """``sum_l ||R_s,l - R_t,l||^2`` of consecutive stages, mean over samples; ``R = exp(-(v_i - w_j)^2 / 8)``.

    The maps of one sample are an (H W, C) matrix, and its first k right singular vectors, one number a channel, stand
    for the stage: v for one stage and w for the next. R holds a Gaussian kernel of each number of v with each of w,
    for each of the k. As in the authors' code, the student's vectors are chosen among its first k + 3: for each of the
    teacher's the one with the largest cosine without its sign, with the sign that makes the cosine positive. The
    vectors of both are scaled by the teacher's singular values, which have length 1 together: for k = 1 this is 1.

    The sign of a singular vector is free, and R depends on it. Public code takes what the decomposition happens to
    give; here the entries of a teacher's vector have a sum >= 0, as all those of its first one are >= 0 after a ReLU.

    The gradient of a singular vector is infinite where two singular values are equal, as they are in maps of zeros.
    RepDistiller and mdistiller replace NaN and Inf in the value, which leaves NaN in the gradient. Here each
    ``1 / d`` in it, d being the difference of two squared singular values as fractions of the map's energy, is
    ``d / (d^2 + 1e-8)``: exact unless two values are as good as equal, and never above 5000. Vectors with less than
    1e-6 of the energy count as zero. mdistiller also decomposes an (C H, W) matrix, whose right singular vectors are
    over columns of the image, and RepDistiller works with square maps only.

    Args:
        student_maps: (N, C_l, H_l, W_l) of two or more stages, from input to output.
        teacher_maps: (N, C_l, H_l', W_l'), as many, with the same channels; get no gradient.
        k: vectors a stage; published: 1.

    Returns:
        Scalar >= 0; 0 when the maps are equal, or have equal singular vectors.

    Raises:
        ValueError: shapes or numbers of stages that do not fit, or k that is not from 1 to the smallest number of
            channels or positions of a stage.
    """
    check_stages(student_maps, teacher_maps)
    _check_k("k", k, [maps.shape for maps in (*student_maps, *teacher_maps)])
    own, goals = [], []
    for student, teacher in zip(student_maps, teacher_maps, strict=True):
        with torch.no_grad():
            goal, values = _right_singular(teacher, k)
            goal = _signed(goal, goal.sum(1, keepdim=True))
        found, _ = _right_singular(student, k + _MORE)
        scale = values / values.norm(dim=1, keepdim=True).clamp(min=_LEAST)
        own.append(_aligned(found, goal) * scale[:, None])
        goals.append(goal * scale[:, None])
    terms = [
        (_kernel(*ours) - _kernel(*theirs)).square().sum((1, 2, 3)).mean()
        for ours, theirs in zip(pairwise(own), pairwise(goals), strict=True)
    ]
    return torch.stack(terms).sum()


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    """(N, C, k) and (N, C', k) to (N, C, C', k)."""
    return torch.exp(-(first[:, :, None] - second[:, None]).square() / 8)


def _aligned(vectors: Tensor, goals: Tensor) -> Tensor:
    """For each of the goals (N, C, k) the vector of (N, C, n) along it, whatever its sign; with that sign."""
    with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
        cosines = vectors.mT @ goals
        best = cosines.abs().argmax(1, keepdim=True)
        cosines = cosines.gather(1, best)
    return _signed(vectors.gather(2, best.expand(-1, vectors.shape[1], -1)), cosines)


def _signed(vectors: Tensor, values: Tensor) -> Tensor:
    return vectors * torch.where(values < 0, -1, 1)


def _right_singular(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors (N, C, n) of the maps (N, C, H, W), and singular values (N, n) of energy 1."""
    rows = at_least_fp32(maps).flatten(2).mT
    energy = rows.square().sum((1, 2), keepdim=True)
    vectors, values = _RightSingular.apply(rows / energy.where(energy > 0, 1).sqrt())
    return vectors[:, :, :count], values[:, :count]


class _Vectors(FunctionCtx):
    """What the backward pass has of the forward one: left and right vectors, values."""

    saved_tensors: tuple[Tensor, Tensor, Tensor]


class _RightSingular(torch.autograd.Function):
    """Right singular vectors with a gradient that stays finite; none for the values."""

    @staticmethod
    def forward(ctx: _Vectors, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """(N, P, C) of energy 1 to (N, C, min(P, C)) vectors and (N, min(P, C)) values, from the largest."""
        with torch.autocast(matrix.device.type, enabled=False):  # it would do the products in half precision
            wide = matrix.shape[1] < matrix.shape[2]
            # The eigenvectors of the smaller of the two products; the other side's follow from them.
            squares, vectors = torch.linalg.eigh(matrix @ matrix.mT if wide else matrix.mT @ matrix)
            squares, vectors = squares.flip(1), vectors.flip(2)
            kept = squares > _LEAST
            values = squares.where(kept, 0).sqrt()
            inverse = (1 / values).where(kept, 0)[:, None]
            vectors = vectors * kept[:, None]
            left, right = (vectors, matrix.mT @ vectors * inverse) if wide else (matrix @ vectors * inverse, vectors)
        ctx.save_for_backward(left, right, values)
        ctx.mark_non_differentiable(values)
        return right, values

    @staticmethod
    def backward(ctx: _Vectors, gradient: Tensor, _: Tensor) -> Tensor:
        """To the matrix X: ``dv_i = sum_j v_j (v_j' dM v_i) / (s_i^2 - s_j^2)`` with ``M = X'X``, over all j."""
        left, right, values = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            squares = values.square()
            gradient = gradient * (values > 0)[:, None]
            along = right.mT @ gradient
            turn = along * _fading_inverse(squares[:, None] - squares[:, :, None])
            across = (gradient - right @ along) * (values * _fading_inverse(squares))[:, None]
            scaled = left * values[:, None]
            total: Tensor = scaled @ (turn + turn.mT) @ right.mT + left @ across.mT
            return total


def _fading_inverse(differences: Tensor) -> Tensor:
    return differences / (differences.square() + _GAP**2)


class KDSVD(nn.Module):
    """`kdsvd` of all matched stages.

    The method wants the same channels in both networks. Where those of a stage differ, a trained 1x1 convolution
    brings the student's to the teacher's; such a term is 0 where the convolved maps have the teacher's vectors.
    RepDistiller cannot do such pairs. Stages that give vectors are maps of one position. An array of N C C' k numbers
    is in memory for each two consecutive stages.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        k: see `kdsvd`.

    Raises:
        ValueError: fewer than two matched stages, or k that is not from 1 to the smallest number of channels or
            positions of a stage.
    """

    def __init__(self, pair: TeacherStudentPair, *, k: int = 1) -> None:
        super().__init__()
        stages = matched_stages(pair)
        if len(stages) < 2:
            raise ValueError(f"feature_loss=kdsvd needs at least 2 stages in both networks, got {len(stages)}")
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        goals = [map_shape(pair.teacher.shapes[path]) for path in self.teacher_paths]
        sizes = [map_shape(pair.student.shapes[path])[2:] for path in self.student_paths]
        # The student's maps have the teacher's channels when they are compared.
        connected = [(*goal[:2], *size) for goal, size in zip(goals, sizes, strict=True)]
        _check_k("feature_loss.kdsvd.k", k, [*connected, *goals])
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self._k = k
        self.connectors = nn.ModuleList(
            to_channels(pair.student.shapes[own], pair.teacher.shapes[goal]) for own, goal in stages
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `kdsvd`. The batch is not used."""
        own, goals = self._compared(student, teacher)
        maps = [as_maps(connector(features)) for connector, features in zip(self.connectors, own, strict=True)]
        return kdsvd(maps, [as_maps(goal) for goal in goals], k=self._k)


def _check_k(name: str, k: int, shapes: Sequence[Sequence[int]]) -> None:
    most = min(min(channels, height * width) for _, channels, height, width in shapes)
    if not 1 <= k <= most:
        raise ValueError(f"{name} must be from 1 to {most}, got {k}")
