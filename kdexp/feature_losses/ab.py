"""The feature distillation term of Heo et al. (AAAI 2019, arXiv 1811.03233).

"Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.adapters import Connector, matched_preacts
from kdexp.feature_losses.maps import Compared, as_maps
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_scalars, check_shapes


def ab(student_maps: Tensor, teacher_maps: Tensor, margin: float) -> Tensor:
    """``mean_n sum_chw max(0, margin - g s)^2`` with g = 1 where the teacher's neuron is active (t > 0), -1 elsewhere.

    A squared hinge on the values before the activation (the alternative loss of the paper): the neuron is to be on the
    teacher's side of 0 by a margin; how active it is does not matter.

    Args:
        student_maps: (N, C, H, W), before the activation.
        teacher_maps: the same shape; gets no gradient.
        margin: > 0; published: 1.

    Returns:
        Scalar >= 0; 0 when all neurons are on the teacher's side by the margin. Where student and teacher are equal
        it is 0 only if no value of the teacher's is nearer to 0 than the margin.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H W", "ab", student_maps=student_maps, teacher_maps=teacher_maps)
    check_scalars(margin=margin)
    student, teacher = at_least_fp32(student_maps), at_least_fp32(teacher_maps.detach())
    side = torch.where(teacher > 0, 1.0, -1.0)
    return (margin - side * student).relu().square().flatten(1).sum(1).mean()


class AB(nn.Module):
    """``sum_i 2^(i - n + 1) * ab_i`` over the n matched stages, the last one with factor 1, with its connectors.

    Each of the student's stages is brought to the teacher's shape by a 1x1 convolution with batch norm. The authors
    train the student and the connectors with this term alone, at weight 3 / 1000, and then without it; so does its
    configuration (``init_fraction`` and ``weight_after_init``). RepDistiller does the same for 30 epochs before the 240
    of the rest: 0.111 of 270. It leaves the student in eval mode in that stage, the authors do not.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`; both sides need `preact` layers.
        margin: see `ab`.

    Raises:
        ValueError: margin <= 0, or a side without layers before the activation.
    """

    def __init__(self, pair: TeacherStudentPair, *, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"feature_loss.ab.margin must be > 0, got {margin}")
        self._margin = margin
        stages = matched_preacts("ab", pair)
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.connectors = nn.ModuleList(
            Connector(pair.student.shapes[own], pair.teacher.shapes[goal]) for own, goal in stages
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `ab`. The batch is not used."""
        last = len(self.connectors) - 1
        terms = [
            2.0 ** (i - last) * ab(connector(own), as_maps(goal), self._margin)
            for i, (own, goal, connector) in enumerate(
                zip(*self._compared(student, teacher), self.connectors, strict=True)
            )
        ]
        return torch.stack(terms).sum()
