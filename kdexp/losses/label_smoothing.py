"""Label smoothing (Szegedy et al., CVPR 2016, arXiv 1512.00567) in the place of a soft term: a control."""

from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.cross_entropy import cross_entropy


class LabelSmoothing(nn.Module):
    """Cross entropy with smoothed labels; what the teacher says is ignored.

    Distillation that does not beat it has only regularised. With the hard term,
    ``alpha * CE(y) + (1 - alpha) * CE(smoothed y)`` is smoothing by (1 - alpha) * smoothing. It is
    `kdexp.losses.cross_entropy.cross_entropy`; unlabelled and mixed targets are handled as there.

    Args:
        smoothing: fraction of the label that is spread evenly over all classes, in [0, 1); published: 0.1.
        kind: what logits and target mean.

    Attributes:
        needs_teacher: False: kdexp builds no teacher for it.

    Raises:
        ValueError: smoothing outside [0, 1).
    """

    needs_teacher = False

    def __init__(self, smoothing: float = 0.1, kind: Kind = "multiclass") -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"loss.smoothing must be in [0, 1), got {smoothing}")
        self._smoothing = smoothing
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, in nats; the teacher's logits are not used."""
        return cross_entropy(student_logits, target, kind=self._kind, label_smoothing=self._smoothing)
