"""The feature distillation term of Yang et al. (ICLR 2021).

"Knowledge Distillation via Softmax Regression Representation Learning".
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.adapters import BatchNorm, convolution
from kdexp.feature_losses.maps import Compared, as_maps, classifier_of, map_shape, vectors
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def srrl(student_features: Tensor, teacher_features: Tensor, classifier: nn.Module) -> Tensor:
    """``mean (s - t)^2 + mean (W(s) - W(t))^2``, W being the teacher's classifier: features, and what it makes of them.

    The first part is the paper's feature matching, the second its softmax regression in the form that the authors
    train, a squared error of logits. Both are means over samples and entries.

    Args:
        student_features: (N, F), connected, F being the teacher's.
        teacher_features: (N, F); gets no gradient.
        classifier: the teacher's, (N, F) to (N, C); frozen.

    Returns:
        Scalar >= 0; 0 when the features are equal.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N F, N F", "srrl", student_features=student_features, teacher_features=teacher_features)
    student, teacher = at_least_fp32(student_features), at_least_fp32(teacher_features.detach())
    with torch.autocast(student.device.type, enabled=False):  # it would do the product in half precision
        return F.mse_loss(student, teacher) + F.mse_loss(classifier(student), classifier(teacher))


class SRRL(nn.Module):
    """`srrl` of the student's last stage and the teacher's penultimate features, with its connector.

    As in the authors' code the connector is a 1x1 convolution without bias, batch norm and ReLU on the maps of the
    student's last stage; its output is averaged over space. The ReLU suits a teacher whose classifier reads features
    that are not negative, as those of nearly all convolutional networks are. The copy of the teacher's classifier is
    frozen. The value is 0 where the connected features are the teacher's. Published: weight 1 for both
    parts (ImageNet).

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.

    Raises:
        ValueError: penultimate features of the teacher that are not vectors.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        own, goal = pair.student.layers.stages[-1], vectors("srrl", pair.teacher)
        self.student_paths, self.teacher_paths = [own], [goal]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        channels = pair.teacher.shapes[goal][-1]
        source = map_shape(pair.student.shapes[own])[1]
        self.connector = nn.Sequential(convolution(source, channels, 1), BatchNorm(channels), nn.ReLU())
        self.classifier = copy.deepcopy(classifier_of("srrl", pair.teacher)).requires_grad_(False)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `srrl`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        return srrl(self.connector(as_maps(own)).mean((2, 3)), goal, self.classifier)
