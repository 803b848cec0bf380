"""The feature distillation term of Kim, Park & Kwak (NeurIPS 2018, arXiv 1802.04977).

"Paraphrasing Complex Network: Network Compression via Factor Transfer".
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, map_shape, resized, unit
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def ft(student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
    """``mean |F_s / ||F_s||_2 - F_t / ||F_t||_2|`` over samples and entries: the factor transfer loss with p = 1.

    A factor is normalised as one vector a sample. The mean over entries is the authors' code, to which their weight of
    500 belongs. RepDistiller first reduces a factor to the mean of its squares over channels, which is attention
    transfer between factors; its weight of 200 belongs to that. A factor of zeros stays zero.

    Args:
        student_factor: (N, C, H, W).
        teacher_factor: the same shape; gets no gradient.

    Returns:
        Scalar >= 0; 0 when each sample's two factors have one direction.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H W", "ft", student_factor=student_factor, teacher_factor=teacher_factor)
    student, teacher = at_least_fp32(student_factor), at_least_fp32(teacher_factor.detach())
    return (unit(student.flatten(1)) - unit(teacher.flatten(1))).abs().mean()


class FT(nn.Module):
    """`ft` of the last stage, with its paraphraser and translator.

    The paraphraser is an autoencoder of the teacher's maps: three 3x3 convolutions to ``rate`` times the channels, and
    three transposed ones back, all with leaky ReLU (0.1). While ``in_init_stage`` is set the term is its reconstruction
    error (``mean (P(t) - t)^2``; the authors' code takes the absolute error); later it is frozen, and
    the term is `ft` between its factor and what the translator, three such convolutions, makes of the student's maps.
    The networks have no batch norm, as in the authors' code. Where sizes differ the larger factor is averaged to the
    smaller. Published: weight 500. Stages that give vectors are maps of one position. It is not 0 where the
    student's features equal the teacher's: the translator is another network than the paraphraser.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        rate: channels of the factor as a fraction of the teacher's; published: 0.5 (and 0.75).

    Attributes:
        in_init_stage: whether the paraphraser is being trained.

    Raises:
        ValueError: rate <= 0.
    """

    def __init__(self, pair: TeacherStudentPair, *, rate: float = 0.5) -> None:
        super().__init__()
        if not rate > 0:
            raise ValueError(f"feature_loss.ft.rate must be > 0, got {rate}")
        own, goal = pair.student.layers.stages[-1], pair.teacher.layers.stages[-1]
        self.student_paths, self.teacher_paths = [own], [goal]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        channels = map_shape(pair.teacher.shapes[goal])[1]
        factor = max(round(rate * channels), 1)
        self.paraphraser = _convolutions(nn.Conv2d, channels, channels, factor, factor)
        self.decoder = _convolutions(nn.ConvTranspose2d, factor, factor, channels, channels)
        width = map_shape(pair.student.shapes[own])[1]
        self.translator = _convolutions(nn.Conv2d, width, width, factor, factor)
        self.in_init_stage = False

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar: the paraphraser's error in the init stage, then `ft`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        maps = as_maps(goal).detach()
        factor = self.paraphraser(maps)
        if self.in_init_stage:
            return F.mse_loss(at_least_fp32(self.decoder(factor)), at_least_fp32(maps))
        translated = self.translator(as_maps(own))
        size = [min(sides) for sides in zip(translated.shape[2:], factor.shape[2:], strict=True)]
        return ft(resized(translated, size), resized(factor, size))


def _convolutions(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], *channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, out in pairwise(channels):
        layers += [kind(width, out, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)
