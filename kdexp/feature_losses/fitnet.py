"""The feature distillation term of Romero et al., "FitNets: Hints for Thin Deep Nets" (ICLR 2015, arXiv 1412.6550)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, Regressor, as_maps, matched_stages
from kdexp.feature_losses.tokens import ComparedTokens, is_padded, token_mse
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def fitnet(regressed: Tensor, hint: Tensor) -> Tensor:
    """``mean (r(s) - t)^2`` over samples, channels and positions.

    r is a trained regressor from the student's maps s (the guided layer) to the shape of the teacher's maps t (the
    hint layer). The paper's equation 3 has half the sum over channels and positions; public code, and the weight of
    100, has the mean.

    Args:
        regressed: (N, C, H, W), what the regressor makes of the student's maps.
        hint: the same shape, the teacher's maps; gets no gradient.

    Returns:
        Scalar >= 0; 0 where the regressed maps are the teacher's.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N C H W, N C H W", "fitnet", regressed=regressed, hint=hint)
    return F.mse_loss(at_least_fp32(regressed), at_least_fp32(hint.detach()))


class FitNet(nn.Module):
    """`fitnet` of one pair of stages, with its regressor.

    The regressor is trained with the student and always there, also where the shapes agree; so the value is not 0
    where the student's maps are the teacher's, but where the regressed ones are. Here it is a resize and a 1x1
    convolution. The paper's is a larger convolution that brings the sizes together; RepDistiller and mdistiller add a
    batch norm and a ReLU, after which a hint below 0 is out of reach, and stages that end before their activation
    (wide ResNets, MobileNetV2) give such hints. Public code also has regressors that no optimizer sees. Stages that
    give vectors are maps of one position; of sequences with padding the tokens alone count, see
    `kdexp.feature_losses.tokens.token_mse`, and the regressor is a linear layer.

    The paper trains the student up to the guided layer with this term first, and the whole student with KD after it;
    the benchmark adds the term to the others in every epoch, and so does the default here.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        stage: which of the matched stages, from 0 at the input; None: the middle one, as published (hint layer 2 of
            the benchmark is the second of three).

    Raises:
        ValueError: a stage that is not there, or other tokens than the teacher's.
    """

    def __init__(self, pair: TeacherStudentPair, *, stage: int | None = None) -> None:
        super().__init__()
        stages = matched_stages(pair)
        chosen = len(stages) // 2 if stage is None else stage
        if not 0 <= chosen < len(stages):
            raise ValueError(f"feature_loss.fitnet.stage must be from 0 to {len(stages) - 1}, got {stage}")
        own, goal = stages[chosen]
        self.student_paths, self.teacher_paths = [own], [goal]
        source, wanted = pair.student.shapes[own], pair.teacher.shapes[goal]
        self._compared: Compared | ComparedTokens
        self.regressor: nn.Module
        if is_padded(pair.student, own) or is_padded(pair.teacher, goal):
            self._compared = ComparedTokens("fitnet", pair, [own], [goal])
            self.student_paths, self.teacher_paths = self._compared.student_paths, self._compared.teacher_paths
            self.regressor = nn.Linear(source[2], wanted[2])
        else:
            self._compared = Compared(pair, self.student_paths, self.teacher_paths)
            self.regressor = Regressor(source, wanted)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `fitnet`. The batch is not used."""
        (own,), (goal,), *masks = self._compared(student, teacher)
        regressed = self.regressor(own)
        return token_mse(regressed, goal, *masks) if masks else fitnet(regressed, as_maps(goal))
