"""The feature distillation term of Passalis and Tefas (ECCV 2018, arXiv 1803.10837).

"Learning Deep Representations with Probabilistic Knowledge Transfer".
"""

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, unit, vectors
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.kl import kl
from kdexp.losses.shapes import check_shapes


def pkt(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """``sum_i KL(p_i || q_i) / N^2``: the probabilities with which a sample picks each sample of the batch.

    p_i (teacher) and q_i (student) are the rows of ``(1 + cos(x_i, x_j)) / 2``, each divided by its sum. As in the
    authors' code a sample can pick itself, which the paper leaves out, and the mean is over all N^2 entries, which is
    why the benchmark's weight is 30000.

    The authors' code adds 1e-7 to both probabilities within the logarithm, so that the value can be below 0; here no
    similarity is below 1e-7 before the rows are divided by their sums. It divides vectors of zeros by 1e-7 with a NaN
    gradient; here their cosine is 0.

    Args:
        student_features: (N, F).
        teacher_features: (N, F'); gets no gradient.

    Returns:
        Scalar >= 0, in nats over N; 0 when the features are equal, or equal up to their lengths and a rotation; 0,
        without a gradient, in a batch of one.

    Raises:
        ValueError: shapes that do not fit; maps have to be pooled or flattened first.
    """
    check_shapes("N F, N F'", "pkt", student_features=student_features, teacher_features=teacher_features)
    log_q, log_p = (_log_probabilities(x) for x in (student_features, teacher_features.detach()))
    return kl(log_p, log_q).mean() / len(log_p)


def _log_probabilities(features: Tensor) -> Tensor:
    rows = unit(at_least_fp32(features))
    with torch.autocast(rows.device.type, enabled=False):  # it would do the product in half precision
        similarities = (1 + rows @ rows.T) / 2
    # Opposite vectors would have the logarithm of 0, or of less by rounding.
    logs = similarities.clamp(min=1e-7).log()
    return logs - logs.logsumexp(1, keepdim=True)


class PKT(nn.Module):
    """`pkt` of the penultimate features, as a module.

    Under DDP the batch is that of all processes.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.

    Raises:
        ValueError: penultimate features that are not vectors.
    """

    def __init__(self, pair: TeacherStudentPair) -> None:
        super().__init__()
        self.student_paths = [vectors("pkt", pair.student)]
        self.teacher_paths = [vectors("pkt", pair.teacher)]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `pkt`. The batch is not used."""
        (own,), (goal,) = self._compared(student, teacher)
        return pkt(gather(own), gather(goal))
