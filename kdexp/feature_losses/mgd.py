"""The feature distillation term of Yang et al., "Masked Generative Distillation" (ECCV 2022, arXiv 2205.01529)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, map_shape, matched_stages, resized, to_channels
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_scalars, check_shapes


def mgd(
    student_maps: Tensor, teacher_maps: Tensor, generate: Callable[[Tensor], Tensor], mask_ratio: float = 0.15
) -> Tensor:
    """``sum (g(m * s) - t)^2`` over channels and positions, mean over samples, with a random mask m.

    Each channel of each sample is masked with a chance of mask_ratio, in all its positions, and the generator g is to
    give the teacher's whole map from what is left (equations 3 to 5 of the paper). What is left is not scaled up.
    The authors mask channels for classification and positions for detection and segmentation; this is the first.

    Args:
        student_maps: (N, C, H, W).
        teacher_maps: the same shape; gets no gradient.
        generate: (N, C, H, W) to the same shape; trained.
        mask_ratio: in [0, 1); published: 0.15 (ImageNet, with a weight of 7e-5), 0.5 to 0.75 for positions.

    Returns:
        Scalar >= 0, random: it depends on torch's random state, and so on the order of the batch. It is not 0 where
        the maps are equal, but where the generated ones are the teacher's.

    Raises:
        ValueError: shapes that do not fit, those of what is generated too.
    """
    check_shapes("N C H W, N C H W", "mgd", student_maps=student_maps, teacher_maps=teacher_maps)
    check_scalars(mask_ratio=mask_ratio)
    kept = torch.rand(student_maps.shape[:2], device=student_maps.device) >= mask_ratio
    generated = generate(student_maps * kept[:, :, None, None])
    check_shapes("N C H W, N C H W", "mgd", teacher_maps=teacher_maps, generated=generated)
    return (at_least_fp32(generated) - at_least_fp32(teacher_maps.detach())).square().sum((1, 2, 3)).mean()


class MGD(nn.Module):
    """`mgd` of the two last stages, with its generator.

    The generator is a 3x3 convolution, a ReLU and a 3x3 convolution, as wide as the teacher's stage. Where the channels
    differ, a trained 1x1 convolution brings the student's to the teacher's before the mask. The authors want equal
    sizes; here the student's map is resized. A stage that gives vectors is a map of one position.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        mask_ratio: see `mgd`.

    Raises:
        ValueError: mask_ratio outside [0, 1).
    """

    def __init__(self, pair: TeacherStudentPair, *, mask_ratio: float = 0.15) -> None:
        super().__init__()
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"feature_loss.mgd.mask_ratio must be in [0, 1), got {mask_ratio}")
        self._mask_ratio = mask_ratio
        own, goal = matched_stages(pair)[-1]
        self.student_paths, self.teacher_paths = [own], [goal]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        channels = map_shape(pair.teacher.shapes[goal])[1]
        self.connector = to_channels(pair.student.shapes[own], pair.teacher.shapes[goal])
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `mgd`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        goals = as_maps(goal)
        maps = resized(as_maps(self.connector(own)), goals.shape[2:])
        return mgd(maps, goals, self.generator, self._mask_ratio)
