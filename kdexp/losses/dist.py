"""The soft term of Huang et al., "Knowledge Distillation from A Stronger Teacher" (NeurIPS 2022, arXiv 2205.10536)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.all_gather import gather
from kdexp.losses.outcomes import check_temperature, outcomes, warn_once
from kdexp.losses.shapes import check_scalars


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    kind: Kind = "multiclass",
) -> Tensor:
    """``T^2 * (inter_weight * (1 - mean_i rho_i) + intra_weight * (1 - mean_c rho_c))``.

    With the probabilities at T as an (N, C) matrix, rho_i is Pearson's correlation of the student's and the teacher's
    row i (one sample over the classes: inter), rho_c that of column c (one class over the batch: intra). A correlation
    with a constant row or column counts as 0.

    The authors' code adds 1e-8 to the product of the two norms, which is larger than the product itself in the columns
    of rare classes (C = 1000, T = 1) and makes their correlation vanish; here a column's scale has no effect. It also
    pools all positions of dense logits into one batch; here each position has its own correlations, and the mean is
    over positions. Under DDP the batch is that of all processes.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        temperature: T > 0; published: 4 (CIFAR-100), 1 (ImageNet).
        inter_weight: published: 1 (the paper's beta).
        intra_weight: published: 1 (the paper's gamma). In a batch of one this part is constant.
        kind: what the logits mean; a sigmoid has two classes.

    Returns:
        Scalar in [0, 2 * T^2 * (inter_weight + intra_weight)]; 0 when student and teacher are equal and not constant.

    Warns:
        UserWarning: once in a process, two classes: every row's correlation is 1 or -1, and the inter part has no
            gradient.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    check_scalars(inter_weight=inter_weight, intra_weight=intra_weight)
    student, teacher = (gather(logits) for logits in outcomes(student_logits, teacher_logits, kind))
    if student.shape[1] == 2:
        warn_once("loss=dist: the inter-class term has no gradient with 2 classes")
    p_student, p_teacher = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    inter = 1 - _correlation(p_student, p_teacher, dim=1).mean()
    intra = 1 - _correlation(p_student, p_teacher, dim=0).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    a, b = (x - x.mean(dim, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=dim, eps=1e-20)


class DIST(nn.Module):
    """`dist` as a module.

    Args:
        temperature: T > 0.
        inter_weight: see `dist`.
        intra_weight: see `dist`.
        kind: see `dist`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        kind: Kind = "multiclass",
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._inter_weight, self._intra_weight = inter_weight, intra_weight
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `dist`. The target is not used."""
        return dist(
            student_logits,
            teacher_logits,
            self.temperature,
            inter_weight=self._inter_weight,
            intra_weight=self._intra_weight,
            kind=self._kind,
        )
