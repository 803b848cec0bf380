"""The feature distillation term of Park et al., "Relational Knowledge Distillation" (CVPR 2019, arXiv 1904.05068)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, vectors
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_scalars, check_shapes


def rkd(
    student_features: Tensor, teacher_features: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """``distance_weight * mean_ij h(d_s, d_t) + angle_weight * mean_ijk h(a_s, a_t)``.

    h is the Huber loss of width 1, d_ij the distance of samples i and j over the mean distance in the batch, a_ijk the
    cosine of the angle at sample i between the directions to j and to k (sections 3.2.1 and 3.2.2). As in the authors'
    code the means are over all pairs and triples, also those of a sample with itself, whose distance and cosine are 0.

    The authors' code takes distances from ``|x|^2 + |y|^2 - 2 x'y``, which loses close pairs to rounding, counts the
    distance of equal samples as 1e-6, and gives NaN for a batch of one or of equal samples; here distances are those of
    the differences, the mean is over pairs that are apart, and those batches are at distance 0 with a gradient of 0.

    The memory grows with the cube of the batch: 64 MiB a copy for 256 samples in float32, 4 GiB for 1024.

    Args:
        student_features: (N, F).
        teacher_features: (N, F'); gets no gradient.
        distance_weight: published for both parts together: 25.
        angle_weight: published for both parts together: 50.

    Returns:
        Scalar >= 0; 0 when the features are equal, or equal up to a shift, a rotation and a factor; 0, without a
        gradient, in a batch of one.

    Raises:
        ValueError: shapes that do not fit; maps have to be pooled or flattened first.
    """
    check_shapes("N F, N F'", "rkd", student_features=student_features, teacher_features=teacher_features)
    check_scalars(distance_weight=distance_weight, angle_weight=angle_weight)
    student, teacher = at_least_fp32(student_features), at_least_fp32(teacher_features.detach())
    (distances_s, angles_s), (distances_t, angles_t) = _relations(student), _relations(teacher)
    return distance_weight * F.smooth_l1_loss(distances_s, distances_t) + angle_weight * F.smooth_l1_loss(
        angles_s, angles_t
    )


def _relations(features: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N, N) over their mean, and cosines (N, N, N)."""
    differences = features.unsqueeze(0) - features.unsqueeze(1)
    distances = differences.norm(dim=2)
    apart = distances > 0
    mean = distances.sum() / apart.sum().clamp(min=1)
    # Where there is no distance a 1 divides instead, so that neither a value nor a gradient is 0 / 0.
    directions = differences / distances.where(apart, 1).unsqueeze(2)
    with torch.autocast(features.device.type, enabled=False):  # it would do the product in half precision
        return distances / mean.where(mean > 0, 1), directions @ directions.transpose(1, 2)


class RKD(nn.Module):
    """`rkd` of the penultimate features, as a module.

    Under DDP the batch is that of all processes.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        distance_weight: see `rkd`.
        angle_weight: see `rkd`.

    Raises:
        ValueError: a weight below 0, or penultimate features that are not vectors.
    """

    def __init__(self, pair: TeacherStudentPair, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        for name, weight in (("distance", distance_weight), ("angle", angle_weight)):
            if not weight >= 0:
                raise ValueError(f"feature_loss.rkd.{name}_weight must be >= 0, got {weight}")
        self.student_paths = [vectors("rkd", pair.student)]
        self.teacher_paths = [vectors("rkd", pair.teacher)]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self._distance_weight, self._angle_weight = distance_weight, angle_weight

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `rkd`. The batch is not used."""
        own, goal = (gather(features) for (features,) in self._compared(student, teacher))
        return rkd(own, goal, distance_weight=self._distance_weight, angle_weight=self._angle_weight)
