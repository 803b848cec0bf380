"""The feature distillation term of Zagoruyko and Komodakis (ICLR 2017, arXiv 1612.03928).

"Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via Attention Transfer".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, check_positions, resized, stages_with_positions, unit
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_scalars, check_shapes


def at(student_maps: Tensor, teacher_maps: Tensor, *, power: float = 2.0) -> Tensor:
    """``mean (q_s / ||q_s|| - q_t / ||q_t||)^2`` over samples and positions.

    q is the attention map ``mean_c |f|^power`` of a sample, one number a position, and its norm is Euclidean over the
    positions. The paper's equation 2 has the Euclidean norm of the difference; the authors' code, the benchmark, and
    the weight of 1000, have this mean of squares. Channels are averaged out, so the two maps may differ in them; where
    they differ in size, the larger one is averaged to the smaller.

    RepDistiller and mdistiller leave out the absolute value, which changes odd powers; one public variant (KD-Lib)
    leaves out the mean over channels, and then compares activations, not attention. A sample without any activation
    has an attention map of zeros.

    Args:
        student_maps: (N, C, H, W).
        teacher_maps: (N, C', H', W'); gets no gradient.
        power: >= 1; published: 2.

    Returns:
        Scalar in [0, 2 / (H W)]; 0 when the maps are equal, or equal up to a factor of each sample.

    Raises:
        ValueError: shapes that do not fit, or a single position, where there is no attention to compare.
    """
    check_shapes("N C H W, N C' H' W'", "at", student_maps=student_maps, teacher_maps=teacher_maps)
    check_scalars(power=power)
    size = [min(sides) for sides in zip(student_maps.shape[2:], teacher_maps.shape[2:], strict=True)]
    check_positions(size)
    student, teacher = (
        _attention(resized(at_least_fp32(x), size), power) for x in (student_maps, teacher_maps.detach())
    )
    return (student - teacher).square().mean()


def _attention(maps: Tensor, power: float) -> Tensor:
    return unit(maps.abs().pow(power).mean(1).flatten(1))


class AT(nn.Module):
    """The sum of `at` over all matched stages that have at least two positions.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        power: see `at`.

    Raises:
        ValueError: power < 1, which has an infinite gradient where a feature is 0; or no stage with positions.
    """

    def __init__(self, pair: TeacherStudentPair, *, power: float = 2.0) -> None:
        super().__init__()
        if not power >= 1:
            raise ValueError(f"feature_loss.at.power must be >= 1, got {power}")
        self._power = power
        stages = stages_with_positions("at", pair)
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `at`. The batch is not used."""
        terms = [
            at(as_maps(own), as_maps(goal), power=self._power)
            for own, goal in zip(*self._compared(student, teacher), strict=True)
        ]
        return torch.stack(terms).sum()
