"""The feature distillation term of Ahn et al. (CVPR 2019, arXiv 1904.05835).

"Variational Information Distillation for Knowledge Transfer".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, map_shape, matched_stages, resized
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_LEAST_VARIANCE = 1e-5


def vid(predicted: Tensor, teacher_maps: Tensor, variance: Tensor) -> Tensor:
    """``mean ((predicted - t)^2 / v_c + log v_c) / 2`` over samples, channels and positions.

    The negative logarithm of the normal density of the teacher's maps, up to a constant, with a mean that a regressor
    predicts from the student's maps and a variance of each channel. The paper sums over channels and positions; public
    code, as RepDistiller has it from the authors, takes the mean, which is what the weight of 1 belongs to.

    Args:
        predicted: (N, C, H, W), what the regressor makes of the student's maps.
        teacher_maps: the same shape; gets no gradient.
        variance: (C,), > 0.

    Returns:
        Scalar; below 0 where it fits with a variance below 1. It is not 0 where the maps are equal: then it is
        ``mean log v_c / 2``.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H W, C", "vid", predicted=predicted, teacher_maps=teacher_maps, variance=variance)
    predicted, variance = at_least_fp32(predicted), at_least_fp32(variance)[:, None, None]
    return 0.5 * ((predicted - at_least_fp32(teacher_maps.detach())).square() / variance + variance.log()).mean()


class VID(nn.Module):
    """The sum of `vid` over all matched stages, with its regressors and variances.

    Each regressor is three 1x1 convolutions without bias and ReLUs between them, as wide as the teacher's stage. Where
    the sizes of the two maps differ, the larger one is averaged to the smaller. The variance of a channel is
    ``softplus(w_c) + 1e-5``. mdistiller holds its w in a plain list that no optimizer sees, so there they never leave
    their first value; here they are parameters. Stages that give vectors are maps of one position.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        initial_variance: of all channels; published: 5.

    Raises:
        ValueError: initial_variance <= 1e-5.
    """

    def __init__(self, pair: TeacherStudentPair, *, initial_variance: float = 5.0) -> None:
        super().__init__()
        if not initial_variance > _LEAST_VARIANCE:
            raise ValueError(f"feature_loss.vid.initial_variance must be > {_LEAST_VARIANCE}, got {initial_variance}")
        stages = matched_stages(pair)
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.regressors, self.scales = nn.ModuleList(), nn.ParameterList()
        excess = initial_variance - _LEAST_VARIANCE
        for own, goal in stages:
            channels = map_shape(pair.teacher.shapes[goal])[1]
            self.regressors.append(_regressor(map_shape(pair.student.shapes[own])[1], channels))
            # The inverse of softplus, in a form that large values do not overflow.
            self.scales.append(nn.Parameter(torch.full((channels,), excess + math.log(-math.expm1(-excess)))))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `vid`. The batch is not used."""
        terms = []
        for own, goal, regressor, scale in zip(
            *self._compared(student, teacher), self.regressors, self.scales, strict=True
        ):
            maps, goals = as_maps(own), as_maps(goal)
            size = [min(sides) for sides in zip(maps.shape[2:], goals.shape[2:], strict=True)]
            predicted = regressor(resized(maps, size))
            terms.append(vid(predicted, resized(goals, size), F.softplus(scale) + _LEAST_VARIANCE))
        return torch.stack(terms).sum()


def _regressor(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(out, out, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(out, out, 1, bias=False),
    )
