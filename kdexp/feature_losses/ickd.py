"""The feature distillation term of Liu et al. (ICCV 2021, arXiv 2202.03680).

"Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, matched_stages, to_channels, unit
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def ickd(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """``||G_s - G_t||^2 / C`` (Frobenius), mean over samples, where G is ``F F'`` with each row at length 1.

    F is the (C, H W) matrix of one sample's maps: row i of G says how much channel i goes along with each other one.
    The paper has no unit rows and divides by C^2; the authors' CIFAR-100 code is as here, and their ImageNet code
    divides by the number of samples once more. Positions are summed out, so the two maps may differ in size. A
    channel without any activation has a row of zeros.

    Args:
        student_maps: (N, C, H, W).
        teacher_maps: (N, C, H', W'); gets no gradient.

    Returns:
        Scalar in [0, 4]; 0 when the maps are equal, or equal up to a factor of each sample and a rotation of the
        positions.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H' W'", "ickd", student_maps=student_maps, teacher_maps=teacher_maps)
    student, teacher = (_correlations(maps) for maps in (student_maps, teacher_maps.detach()))
    return (student - teacher).square().sum(2).mean()


def _correlations(maps: Tensor) -> Tensor:
    rows = at_least_fp32(maps).flatten(2)
    with torch.autocast(rows.device.type, enabled=False):  # it would do the product in half precision
        return unit(rows @ rows.mT)


class ICKD(nn.Module):
    """`ickd` of the two last stages (ICKD-C, for classification).

    Where the channels differ, a trained 1x1 convolution brings the student's to the teacher's, the paper's linear
    transformation. The authors' code adds a batch norm to it, and keeps it where they agree. A stage that gives
    vectors is a map of one position.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        own, goal = matched_stages(pair)[-1]
        self.student_paths, self.teacher_paths = [own], [goal]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.connector = to_channels(pair.student.shapes[own], pair.teacher.shapes[goal])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `ickd`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        return ickd(as_maps(self.connector(own)), as_maps(goal))
