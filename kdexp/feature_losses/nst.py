"""The feature distillation term of Huang and Wang (arXiv 1707.01219).

"Like What You Like: Knowledge Distill via Neuron Selectivity Transfer".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, check_positions, resized, stages_with_positions, unit
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def nst(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """``mean k(s_i, s_j) + mean k(t_i, t_j) - 2 mean k(s_i, t_j)`` with ``k(a, b) = (a'b)^2``, mean over samples.

    The squared maximum mean discrepancy between the channels of the two networks, with the polynomial kernel of the
    paper (degree 2, c = 0): the vectors are the channels of one sample, each laid out over the positions, at length 1,
    and the means are over all pairs of channels. It asks for the same patterns over space, from however many channels
    and in whatever order. Where the sizes differ, the larger map is averaged to the smaller. A channel without any
    activation is a vector of zeros.

    Public code holds the products of all pairs of channels at all positions at once, (N, C, C', H W) numbers. Here
    it is one product of matrices, N times the smaller of C and H W, squared: with few positions the value is computed
    as ``||S'S / C - T'T / C'||^2``, which is the same.

    Args:
        student_maps: (N, C, H, W).
        teacher_maps: (N, C', H', W'); gets no gradient.

    Returns:
        Scalar in [0, 2] but for rounding; 0 when the maps are equal, or equal up to the order and the scale of
        channels.

    Raises:
        ValueError: shapes that do not fit, or a single position, where all channels are alike.
    """
    check_shapes("N C H W, N C' H' W'", "nst", student_maps=student_maps, teacher_maps=teacher_maps)
    size = [min(sides) for sides in zip(student_maps.shape[2:], teacher_maps.shape[2:], strict=True)]
    check_positions(size)
    student, teacher = (unit(resized(at_least_fp32(x), size).flatten(2)) for x in (student_maps, teacher_maps.detach()))
    with torch.autocast(student.device.type, enabled=False):  # it would do the products in half precision
        if student.shape[2] <= min(student.shape[1], teacher.shape[1]):
            difference = student.mT @ student / student.shape[1] - teacher.mT @ teacher / teacher.shape[1]
            return difference.square().sum((1, 2)).mean()
        return _kernel(student, student) + _kernel(teacher, teacher) - 2 * _kernel(student, teacher)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).square().mean()


class NST(nn.Module):
    """The sum of `nst` over all matched stages that have at least two positions.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.

    Raises:
        ValueError: no stage has positions.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        stages = stages_with_positions("nst", pair)
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `nst`. The batch is not used."""
        terms = [nst(as_maps(own), as_maps(goal)) for own, goal in zip(*self._compared(student, teacher), strict=True)]
        return torch.stack(terms).sum()
