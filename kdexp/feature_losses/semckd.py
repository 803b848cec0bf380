"""The feature distillation term of Chen et al. (AAAI 2021, arXiv 2012.03236).

"Cross-Layer Distillation with Semantic Calibration".
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.adapters import BatchNorm
from kdexp.feature_losses.maps import Compared, as_maps, map_shape, resized, unit
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_PROFILE = 64  # the published batch size, to which the sizes of the attention's layers belong
_EMBEDDING = _PROFILE // 4


def semckd(projected: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]], attention: Tensor) -> Tensor:
    """``mean_n mean_i sum_j a_nij * mse(P_ij(s_i), t_j)``: each student stage against all teacher stages.

    Args:
        projected: ``[i][j]``: student stage i as (N, C_j, H_ij, W_ij).
        targets: ``[i][j]``: teacher stage j, the same shape; gets no gradient.
        attention: (N, I, J), of I student stages and J teacher stages; its rows sum to 1.

    Returns:
        Scalar >= 0; 0 when all projected maps are the teacher's.

    Raises:
        ValueError: shapes or numbers of stages that do not fit.
    """
    _check_stages(projected, targets, attention)
    errors = torch.stack(
        [
            torch.stack([_error(s, t) for s, t in zip(own, goal, strict=True)], 1)
            for own, goal in zip(projected, targets, strict=True)
        ],
        1,
    )
    return (attention * errors).sum(2).mean()


def _check_stages(
    projected: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]], attention: Tensor
) -> None:
    counts, goals = [len(row) for row in projected], [len(row) for row in targets]
    if counts != goals or len(set(counts)) != 1 or not all(counts):
        raise ValueError(f"projected and targets must be of the same stages, [i][j], got {counts} and {goals}")
    patterns: list[str] = []
    named: dict[str, Tensor] = {}
    for i, rows in enumerate(zip(projected, targets, strict=True)):
        for j, (own, goal) in enumerate(zip(*rows, strict=True)):
            patterns += [f"N C_{j} H_{i}_{j} W_{i}_{j}"] * 2
            named |= {f"projected[{i}][{j}]": own, f"targets[{i}][{j}]": goal}
    check_shapes(", ".join([*patterns, f"N {len(counts)} {counts[0]}"]), **named, attention=attention)


def _error(student: Tensor, teacher: Tensor) -> Tensor:
    return (at_least_fp32(student) - at_least_fp32(teacher.detach())).square().flatten(1).mean(1)


def profile(features: Tensor) -> Tensor:
    """How alike a sample is to those of its batch: the sorted inner products of features, as 64 numbers.

    The authors feed a row of the batch's matrix of inner products to a network. It has as many entries as the batch
    has samples, so theirs works for one batch size and skips the last batch; and its order is that of the samples in
    the batch, which says nothing. Here the row is sorted and interpolated between its entries to 64. With the published
    batch size of 64 these are the sorted entries themselves. Under DDP the batch is that of all ranks.

    Args:
        features: (N, F, *), with a gradient or without.

    Returns:
        (N, 64), from the least to the most alike.

    Raises:
        ValueError: a single dimension.
    """
    check_shapes("N F *", features=features)
    rows = at_least_fp32(features.flatten(1))
    with torch.autocast(rows.device.type, enabled=False):  # it would do the product in half precision
        products = (rows @ gather(rows).T).sort(1).values
    return F.interpolate(products[:, None], _PROFILE, mode="linear", align_corners=True)[:, 0]


class SemCKD(nn.Module):
    """`semckd` with its attention and projections.

    From the `profile` of each stage a small network makes a vector of unit length, the query of a student stage or the
    key of a teacher stage; the attention is the softmax of their inner products over the teacher's stages. The larger
    of two maps is averaged to the smaller, and the student's are projected to the teacher's channels by 1x1, 3x3 and
    1x1 convolutions with batch norm and ReLU between them, twice as wide as the teacher's stage: they can
    hold more weights than the student. Stages that give vectors are maps of one position. Published: weight 400. It is
    not 0 where the student's features equal the teacher's.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        self.student_paths, self.teacher_paths = [*pair.student.layers.stages], [*pair.teacher.layers.stages]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.queries = nn.ModuleList(_embedding() for _ in self.student_paths)
        self.keys = nn.ModuleList(_embedding() for _ in self.teacher_paths)
        widths, goals = (
            [map_shape(side.shapes[path])[1] for path in side.layers.stages] for side in (pair.student, pair.teacher)
        )
        self.projections = nn.ModuleList(nn.ModuleList(_projection(own, goal) for goal in goals) for own in widths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `semckd`. The batch is not used."""
        stages, goals = self._compared(student, teacher)
        own, goal = [as_maps(features) for features in stages], [as_maps(features).detach() for features in goals]
        projected, targets = [], []
        for maps, projections in zip(own, self.projections, strict=True):
            assert isinstance(projections, nn.ModuleList)
            sizes = [[min(sides) for sides in zip(maps.shape[2:], t.shape[2:], strict=True)] for t in goal]
            projected.append([p(resized(maps, size)) for p, size in zip(projections, sizes, strict=True)])
            targets.append([resized(t, size) for t, size in zip(goal, sizes, strict=True)])
        return semckd(projected, targets, self._attention(own, goal))

    def _attention(self, own: Sequence[Tensor], goal: Sequence[Tensor]) -> Tensor:
        """(N, student stages, teacher stages)."""
        # Inner products of whole maps are beyond the range of half precision.
        with torch.autocast(own[0].device.type, enabled=False):
            queries = [unit(embed(profile(maps))) for embed, maps in zip(self.queries, own, strict=True)]
            keys = [unit(embed(profile(maps))) for embed, maps in zip(self.keys, goal, strict=True)]
            return (torch.stack(queries, 1) @ torch.stack(keys, 2)).softmax(2)


def _embedding() -> nn.Sequential:
    return nn.Sequential(nn.Linear(_PROFILE, 2 * _EMBEDDING), nn.ReLU(), nn.Linear(2 * _EMBEDDING, _EMBEDDING))


def _projection(channels: int, out: int) -> nn.Sequential:
    middle = 2 * out
    return nn.Sequential(
        nn.Conv2d(channels, middle, 1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, out, 1, bias=False),
    )
