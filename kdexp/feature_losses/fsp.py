"""The feature distillation term of Yim et al. (CVPR 2017).

"A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning".
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, check_stages, matched_stages, resized, to_channels
from kdexp.losses.dtype import at_least_fp32


def fsp(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """``sum_i mean (G_s,i - G_t,i)^2``, where ``G_i = F_i F_(i+1)' / (H W)`` is the flow from stage i to the next.

    F_i is the (C_i, H W) matrix of a sample's maps of stage i, and the mean is over samples and the entries of G
    (equations 1 and 2 of the paper, which has the sum over entries; the benchmark has the mean). Where the sizes of
    two consecutive stages differ, the larger one is averaged to the smaller; the paper takes the maximum instead.
    Student and teacher may differ in size.

    Args:
        student_maps: (N, C_i, H_i, W_i) of two or more stages, from input to output.
        teacher_maps: (N, C_i, H_i', W_i'), as many, with the same channels; get no gradient.

    Returns:
        Scalar >= 0; 0 when the maps are equal.

    Raises:
        ValueError: shapes or numbers of stages that do not fit.
    """
    check_stages(student_maps, teacher_maps)
    flows = [
        F.mse_loss(_flow(*own), _flow(*(x.detach() for x in goal)))
        for own, goal in zip(pairwise(student_maps), pairwise(teacher_maps), strict=True)
    ]
    return torch.stack(flows).sum()


def _flow(first: Tensor, second: Tensor) -> Tensor:
    size = [min(sides) for sides in zip(first.shape[2:], second.shape[2:], strict=True)]
    first, second = (resized(at_least_fp32(maps), size).flatten(2) for maps in (first, second))
    with torch.autocast(first.device.type, enabled=False):  # it would do the product in half precision
        return first @ second.mT / first.shape[2]


class FSP(nn.Module):
    """`fsp` of all matched stages.

    The paper and RepDistiller want the same channels in both networks. Here, where those of a stage differ, a trained
    1x1 convolution brings the student's to the teacher's; such a term is 0 where the convolved maps are the teacher's.
    RepDistiller also has the flow from the network's first convolution to the first stage. Stages that give vectors
    are maps of one position.

    The method has two stages: the term trains alone first, and not at all after it. RepDistiller gives the first 30
    of 270 epochs to it, with a weight of 1: the 50 of its command line multiplies a constant 0 in the epochs that
    follow.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.

    Raises:
        ValueError: fewer than two matched stages.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        stages = matched_stages(pair)
        if len(stages) < 2:
            raise ValueError(f"feature_loss=fsp needs at least 2 stages in both networks, got {len(stages)}")
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.connectors = nn.ModuleList(
            to_channels(pair.student.shapes[own], pair.teacher.shapes[goal]) for own, goal in stages
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `fsp`. The batch is not used."""
        own, goals = self._compared(student, teacher)
        maps = [as_maps(connector(features)) for connector, features in zip(self.connectors, own, strict=True)]
        return fsp(maps, [as_maps(goal) for goal in goals])
