"""The feature distillation term of Shu et al. (ICCV 2021, arXiv 2011.13256).

"Channel-wise Knowledge Distillation for Dense Prediction".
"""

from torch import Tensor, nn

from kdexp.contracts import UNLABELED, Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, as_maps, check_positions, resized, stages_with_positions, to_channels
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.kl import kl
from kdexp.losses.shapes import check_scalars, check_shapes

_NOWHERE = -1e9
"""The logit of a pixel that does not count: it has no probability. Finite, because 0 * inf is NaN."""


def cwd(student_maps: Tensor, teacher_maps: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(p_t || p_s)``, mean over samples and channels, where p is the softmax over the positions of a channel.

    Each channel is a distribution over space, and those of the teacher are to be met (equation 4 of the paper). A
    constant added to a channel has no effect.

    Args:
        student_maps: (N, C, H, W).
        teacher_maps: the same shape; gets no gradient.
        temperature: T > 0; published: 4.

    Returns:
        Scalar >= 0, in nats (times T^2); 0 when the maps are equal, or equal up to a constant in each channel.

    Raises:
        ValueError: shapes that do not fit, or a single position, which has a probability of 1 whatever it is.
    """
    check_shapes("N C H W, N C H W", "cwd", student_maps=student_maps, teacher_maps=teacher_maps)
    check_scalars(temperature=temperature)
    check_positions(student_maps.shape[2:])
    student, teacher = (
        (at_least_fp32(x).flatten(2).mT / temperature).log_softmax(1) for x in (student_maps, teacher_maps.detach())
    )
    return temperature**2 * kl(teacher, student).mean()


class CWD(nn.Module):
    """`cwd` of the last matched stages that have at least two positions, or of the logits of masks.

    Where the channels differ, a trained 1x1 convolution brings the student's to the teacher's; the authors add a batch
    norm and a ReLU to it, and keep it where they agree. Where the sizes differ, the student's map is resized. Logits
    need neither; pixels that are ``VOID`` or ``ABSENT`` are in none of their distributions.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        temperature: T > 0, of this term alone.
        of_logits: compare the logits (N, C, H, W).

    Raises:
        ValueError: temperature <= 0, no stage with positions, or logits that are not maps.
    """

    def __init__(self, pair: TeacherStudentPair, *, temperature: float = 4.0, of_logits: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"feature_loss.cwd.temperature must be > 0, got {temperature}")
        self._temperature, self._of_logits = temperature, of_logits
        if of_logits:
            logits = tuple(pair.student.shapes[""])
            if len(logits) != 4:
                rule = "must be false unless logits are maps (N, C, H, W)"
                raise ValueError(f"feature_loss.cwd.of_logits {rule}, got true with logits {logits}")
            self.student_paths, self.teacher_paths = [], []
            return
        own, goal = stages_with_positions("cwd", pair)[-1]
        self.student_paths, self.teacher_paths = [own], [goal]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        self.connector = to_channels(pair.student.shapes[own], pair.teacher.shapes[goal])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `cwd`. The batch is not used but for the masks where logits are compared."""
        if self._of_logits:
            own_logits, goal_logits = at_least_fp32(student.logits), at_least_fp32(teacher.logits)
            if batch is not None:
                counts = (batch.target >= UNLABELED).unsqueeze(1)
                own_logits, goal_logits = own_logits.where(counts, _NOWHERE), goal_logits.where(counts, _NOWHERE)
            return cwd(own_logits, goal_logits, self._temperature)
        (own,), (goal,) = self._compared(student, teacher)
        goals = as_maps(goal)
        return cwd(resized(as_maps(self.connector(own)), goals.shape[2:]), goals, self._temperature)
