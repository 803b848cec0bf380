"""The feature distillation term of Tung and Mori (ICCV 2019, arXiv 1907.09682).

"Similarity-Preserving Knowledge Distillation".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, unit
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def sp(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """``||G_s - G_t||^2 / N^2`` (Frobenius), where G is ``Q Q'`` with each row at length 1.

    Q is the (N, F) matrix of the samples' features, whatever their shape, laid out as one row each: row i of G says
    how much sample i excites the same units as each other sample of the batch (section 3 of the paper, with one pair of
    layers). Samples are compared within a network, so the two may differ in channels and size.

    RepDistiller agrees. torchdistill divides each row by its sum of absolute values, as the 1 in its
    ``normalize(gram, 1)`` is the order of the norm and not the dimension. A sample without any activation has a row of
    zeros.

    Args:
        student_features: (N, F, *).
        teacher_features: (N, F', *), of any other channels and size; gets no gradient.

    Returns:
        Scalar in [0, 4 / N]; 0 when the features are equal, or equal up to a factor and a rotation; 0, without a
        gradient, in a batch of one.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N F *, N F' *", "sp", student_features=student_features, teacher_features=teacher_features)
    student, teacher = (_similarities(x) for x in (student_features, teacher_features.detach()))
    return (student - teacher).square().mean()


def _similarities(features: Tensor) -> Tensor:
    rows = at_least_fp32(features).flatten(1)
    with torch.autocast(rows.device.type, enabled=False):  # it would do the product in half precision
        return unit(rows @ rows.T)


class SP(nn.Module):
    """`sp` of the two last stages, as a module.

    Under DDP the batch is that of all processes.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        self.student_paths = [pair.student.layers.stages[-1]]
        self.teacher_paths = [pair.teacher.layers.stages[-1]]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `sp`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        return sp(gather(own), gather(goal))
