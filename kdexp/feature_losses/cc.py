"""The feature distillation term of Peng et al. (ICCV 2019, arXiv 1904.01802).

"Correlation Congruence for Knowledge Distillation".
"""

import math

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, unit, vectors
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_scalars, check_shapes


def cc(student_features: Tensor, teacher_features: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """``mean_ij (k(s_i, s_j) - k(t_i, t_j))^2``, with the Gaussian kernel k between the samples of a batch.

    The kernel ``exp(-gamma ||x - y||^2)`` of features at length 1 is ``exp(-2 gamma) exp(2 gamma x'y)``, and the paper
    takes the Taylor series of the second factor to an order P:
    ``exp(-2 gamma) sum_{p=0}^P (2 gamma)^p / p! (x'y)^p``. Kernels are taken within a network, so the two may differ in
    their number of features, and no embedding is trained that could make them agree by itself.

    RepDistiller, and what was derived from it, has another formula under this name (from one of the authors, as it
    says): the mean of ``sum_f |s_i - t_i| |s_{i+1} - t_{i+1}|`` over neighbours in the batch. It changes with the
    order of the batch, is no correlation within a network, and trains an embedding of the teacher too, which can bring
    it to 0 alone; its weight of 0.02 means nothing here. torchdistill has the series, but of features of any length,
    and takes the norm of the difference instead of its square.

    Args:
        student_features: (N, F).
        teacher_features: (N, F'); gets no gradient.
        gamma: > 0, of the kernel; 0.4 in torchdistill and Knowledge-Distillation-Zoo; the latter has this formula.
        order: P >= 1; 2 in the same two. The first order compares cosines.

    Returns:
        Scalar >= 0; 0 when the features are equal, or equal up to their lengths and a rotation; 0, without a
        gradient, in a batch of one.

    Raises:
        ValueError: shapes that do not fit; maps have to be pooled or flattened first.
    """
    check_shapes("N F, N F'", "cc", student_features=student_features, teacher_features=teacher_features)
    check_scalars(gamma=gamma)
    student, teacher = (_kernel(x, gamma, order) for x in (student_features, teacher_features.detach()))
    return (student - teacher).square().mean()


def _kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    rows = unit(at_least_fp32(features))
    with torch.autocast(rows.device.type, enabled=False):  # it would do the product in half precision
        cosines = rows @ rows.T
    terms = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(0)


class CC(nn.Module):
    """`cc` of the penultimate features, as a module.

    Under DDP the batch is that of all processes. The paper also draws batches with several samples of a class; here
    they are the training's own.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        gamma: see `cc`.
        order: see `cc`.

    Raises:
        ValueError: gamma <= 0 or order < 1, or penultimate features that are not vectors.
    """

    def __init__(self, pair: TeacherStudentPair, *, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        if not gamma > 0:
            raise ValueError(f"feature_loss.cc.gamma must be > 0, got {gamma}")
        if order < 1:
            raise ValueError(f"feature_loss.cc.order must be at least 1, got {order}")
        self.student_paths = [vectors("cc", pair.student)]
        self.teacher_paths = [vectors("cc", pair.teacher)]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self._gamma, self._order = gamma, order

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `cc`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        return cc(gather(own), gather(goal), gamma=self._gamma, order=self._order)
