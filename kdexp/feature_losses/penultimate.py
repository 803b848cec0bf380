"""Feature distillation terms that compare what the two classifiers read, sample by sample.

The cosine is in the loss of Sanh et al., "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
lighter" (arXiv 1910.01108), the squared error in that of Jiao et al., "TinyBERT: Distilling BERT for Natural Language
Understanding" (Findings of EMNLP 2020, arXiv 1909.10351), both between the states of transformers.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, unit, vectors
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


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
    """Reads the features of both classifiers; a linear layer brings the student's to the teacher's number."""

    _name: ClassVar[str]  # of the method, for messages

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        self.student_paths = [vectors(self._name, pair.student)]
        self.teacher_paths = [vectors(self._name, pair.teacher)]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        own = pair.student.shapes[self.student_paths[0]][-1]
        goal = pair.teacher.shapes[self.teacher_paths[0]][-1]
        self.projection = nn.Identity() if own == goal else nn.Linear(own, goal)

    def features(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Two of (N, F), F being the teacher's."""
        (own,), (goal,) = self._compared(student, teacher)
        return self.projection(own), goal


class Cosine(_Penultimate):
    """`cosine` of the penultimate features, as a module.

    Where the two networks differ in their number of features, a trained linear layer projects the student's, and the
    value is 0 where the projected features have the teacher's directions. DistilBERT's student has the width of its
    teacher and needs none. Its published weights are 5 for the soft term, 2 for the hard term and 1 for this.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
    """

    _name = "cosine"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `cosine`. The batch is not used."""
        return cosine(*self.features(student, teacher))


class FeatureMSE(_Penultimate):
    """`feature_mse` of the penultimate features, as a module.

    Where the two networks differ in their number of features, a trained linear layer projects the student's, as
    TinyBERT's W_h does, and the value is 0 where the projected features are the teacher's. TinyBERT compares the states
    of all its layers in this way, each with weight 1; here it is what the classifier reads.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
    """

    _name = "feature_mse"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `feature_mse`. The batch is not used."""
        return feature_mse(*self.features(student, teacher))
