"""The feature distillation term of Heo et al. (ICCV 2019, arXiv 1904.01866).

"A Comprehensive Overhaul of Feature Distillation".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.adapters import Connector, matched_preacts
from kdexp.feature_losses.maps import Compared, as_maps, map_shape
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def ofd(student_maps: Tensor, teacher_maps: Tensor, margin: Tensor) -> Tensor:
    """``mean_n sum_chw d(s, max(t, m_c))``, d(s, t) = 0 where s <= t <= 0, and (s - t)^2 elsewhere.

    The teacher's values before the activation go through a margin ReLU; where they come out
    at or below 0 the student may be lower still (the partial L2 distance). The sum over entries is the
    authors' code, to which their weight belongs.

    Args:
        student_maps: (N, C, H, W), before the activation.
        teacher_maps: the same shape; gets no gradient.
        margin: (C,), <= 0.

    Returns:
        Scalar >= 0; 0 when the student's values are the teacher's after its margin ReLU.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H W, C", "ofd", student_maps=student_maps, teacher_maps=teacher_maps, margin=margin)
    student = at_least_fp32(student_maps)
    target = torch.maximum(at_least_fp32(teacher_maps.detach()), at_least_fp32(margin.detach())[:, None, None])
    counts = (student > target) | (target > 0)
    return (counts * (student - target).square()).flatten(1).sum(1).mean()


class Margin(nn.Module):
    """The mean of the negative values of each channel, over all the batches seen: ``m_c = E[t | t < 0]``.

    All DDP ranks see the same batches and have the same margins. A channel that has not been below 0 has margin 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("seen", torch.zeros(channels, dtype=torch.int64))
        self.mean: Tensor
        self.seen: Tensor

    @torch.no_grad()
    def forward(self, maps: Tensor) -> Tensor:
        """Learn from maps and give the margins (C,).

        Args:
            maps: (N, C, H, W), in at least float32.

        Raises:
            ValueError: another number of dimensions or channels.
        """
        check_shapes(f"N {len(self.mean)} H W", maps=maps)
        local = torch.stack((maps.clamp(max=0).sum((0, 2, 3)), (maps < 0).sum((0, 2, 3))))
        sums, counts = gather(local[None]).sum(0)
        self.seen += counts.long()
        self.mean += (sums - counts * self.mean) / self.seen.clamp(min=1)
        return self.mean


class OFD(nn.Module):
    """``sum_i ofd_i / 2^(n - i - 1)`` over the n matched stages, the last one with factor 1, with its connectors.

    Each of the student's stages before its activation is brought to the teacher's shape by a 1x1 convolution with
    batch norm. The paper defines a channel's margin as the mean of its negative values; the authors derive it from the
    batch norm before the activation, as if values were normal, which a network need not have and the sum of a residual
    block is not. Here it is measured on the batches as they come (`Margin`). The authors let the teacher normalise with
    the statistics of each batch; here it is in eval mode. Published weights: 1e-3 for images of 32 pixels, 1e-4 for
    224. It is not 0 where the student's features equal the teacher's: connectors and margin stand between.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`; both sides need `preact` layers.

    Raises:
        ValueError: a side without layers before the activation.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        stages = matched_preacts("ofd", pair)
        self.student_paths, self.teacher_paths = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.connectors, self.margins = nn.ModuleList(), nn.ModuleList()
        for own, goal in stages:
            self.connectors.append(Connector(pair.student.shapes[own], pair.teacher.shapes[goal]))
            self.margins.append(Margin(map_shape(pair.teacher.shapes[goal])[1]))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `ofd`. The batch is not used."""
        last = len(self.connectors) - 1
        terms = []
        for i, (own, goal) in enumerate(zip(*self._compared(student, teacher), strict=True)):
            maps = at_least_fp32(as_maps(goal))
            term = ofd(self.connectors[i](own), maps, self.margins[i](maps))
            terms.append(term / 2 ** (last - i))
        return torch.stack(terms).sum()
