"""Feature distillation terms that compare what the two classifiers read, sample by sample.

The cosine is in the loss of Sanh et al., "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
lighter" (arXiv 1910.01108), the squared error in that of Jiao et al., "TinyBERT: Distilling BERT for Natural Language
Understanding" (Findings of EMNLP 2020, arXiv 1909.10351), both between the states of transformers.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, unit, vectors
from kdexp.feature_losses.tokens import ComparedTokens, spread_stages, token_cosine, token_mse
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_OfVectors = Callable[[Tensor, Tensor], Tensor]
_OfTokens = Callable[[Tensor, Tensor, Tensor], Tensor]


def cosine(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """``1 - mean_i cos(s_i, t_i)``: the direction of each sample's features, whatever their length.

    The cosine with a vector of zeros counts as 0. PyTorch's CosineEmbeddingLoss with a target of 1, which the authors'
    code calls, is the same.

    Args:
        student_features: (N, F).
        teacher_features: the same shape; gets no gradient.

    Returns:
        Scalar in [0, 2]; 0 when each sample's two vectors have one direction.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N F, N F", "cosine", student_features=student_features, teacher_features=teacher_features)
    student, teacher = at_least_fp32(student_features), at_least_fp32(teacher_features.detach())
    return 1 - (unit(student) * unit(teacher)).sum(-1).mean()


def feature_mse(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """``mean_{i,f} (s_if - t_if)^2``.

    Args:
        student_features: (N, F).
        teacher_features: the same shape; gets no gradient.

    Returns:
        Scalar >= 0; 0 when student and teacher are equal.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N F, N F", "feature_mse", student_features=student_features, teacher_features=teacher_features)
    return F.mse_loss(at_least_fp32(student_features), at_least_fp32(teacher_features.detach()))


class _Penultimate(nn.Module):
    """Reads the features of both classifiers, or the tokens of stages.

    A linear layer brings the student's to the teacher's number.
    """

    _name: ClassVar[str]  # of the method, for messages

    def __init__(self, pair: TeacherStudentPair, *, stages: Sequence[int] | None = None) -> None:
        super().__init__()
        self._compared: Compared | ComparedTokens
        if stages is None:
            own, goal = [vectors(self._name, pair.student)], [vectors(self._name, pair.teacher)]
            self._compared = Compared(pair, own, goal)
            self.student_paths, self.teacher_paths = own, goal
        else:
            own, goal = self._chosen(pair, stages)
            self._compared = ComparedTokens(self._name, pair, own, goal)
            self.student_paths, self.teacher_paths = self._compared.student_paths, self._compared.teacher_paths
        widths = pair.student.shapes[own[0]][-1], pair.teacher.shapes[goal[0]][-1]
        self.projection = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths)

    def _chosen(self, pair: TeacherStudentPair, stages: Sequence[int]) -> tuple[list[str], list[str]]:
        matched = spread_stages(pair)
        if not stages or any(not 0 <= stage < len(matched) for stage in stages):
            rule = f"must be null or a list of stages from 0 to {len(matched) - 1}"
            raise ValueError(f"feature_loss.{self._name}.stages {rule}, got {stages}")
        chosen = [matched[stage] for stage in stages]
        return [own for own, _ in chosen], [goal for _, goal in chosen]

    def _value(self, student: Outputs, teacher: Outputs, of_vectors: _OfVectors, of_tokens: _OfTokens) -> Tensor:
        """Of tokens the sum over the stages."""
        own, goal, *masks = self._compared(student, teacher)
        if not masks:
            return of_vectors(self.projection(own[0]), goal[0])
        terms = [of_tokens(self.projection(s), t, *masks) for s, t in zip(own, goal, strict=True)]
        return torch.stack(terms).sum()


class Cosine(_Penultimate):
    """`cosine` of the penultimate features, as a module.

    Where the two networks differ in their number of features, a trained linear layer projects the student's, and the
    value is 0 where the projected features have the teacher's directions. DistilBERT's student has the width of its
    teacher and needs none. Its published weights are 5 for the soft term, 2 for the hard term and 1 for this. It
    compares the tokens of the last layer: ``+feature_loss.cosine.stages=[1]`` of two stages.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        stages: the stages whose tokens are compared instead, from 0 at the input, each with the teacher's at the same
            fraction of its depth, by `kdexp.feature_losses.tokens.token_cosine`; the values are added. Networks with
            padding must have the same tokens.

    Raises:
        ValueError: no vectors to read; or stages that are not there, that are no sequences, or of other tokens.
    """

    _name = "cosine"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `cosine`. The batch is not used."""
        return self._value(student, teacher, cosine, token_cosine)


class FeatureMSE(_Penultimate):
    """`feature_mse` of the penultimate features, as a module.

    Where the two networks differ in their number of features, a trained linear layer projects the student's, as
    TinyBERT's W_h does, and the value is 0 where the projected features are the teacher's. TinyBERT compares the states
    of all its layers in this way, with one W_h and each with weight 1: ``+feature_loss.feature_mse.stages=[0,1,2,3]``
    of four stages. By default it is what the classifier reads.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        stages: the stages whose tokens are compared instead, from 0 at the input, each with the teacher's at the same
            fraction of its depth, by `kdexp.feature_losses.tokens.token_mse`; the values are added. Networks with
            padding must have the same tokens.

    Raises:
        ValueError: no vectors to read; or stages that are not there, that are no sequences, or of other tokens.
    """

    _name = "feature_mse"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `feature_mse`. The batch is not used."""
        return self._value(student, teacher, feature_mse, token_mse)
