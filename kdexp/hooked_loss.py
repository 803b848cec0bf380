"""Feature losses in a training loop of one's own."""

from typing import cast

from torch import Tensor, nn

from kdexp.contracts import Batch, FeatureLoss, Outputs, TeacherStudentPair
from kdexp.features import Reader

_LOGITS = ""  # the path of the network itself


class HookedLoss(nn.Module):
    """A feature loss that reads by itself what both networks computed when they last ran.

        pair = pair_of(student, teacher, images)
        with HookedLoss(AT(pair), pair) as attention:
            ...
            logits = student(images)
            with torch.no_grad():
                teacher(images)
            loss = F.cross_entropy(logits, labels) + 1000 * attention()

    Forward hooks on both networks keep the features until the loss takes them; they stay until `close`, or the end of a
    ``with``. Both networks run as they always do, wrapped (DDP) or not, each once before every call. The parameters of
    this module are those of the loss (regressors, embeddings), to be given to the optimizer with the student's; it is
    moved to another device as any module is.

    Methods in two stages (ab, fsp, ft) have a term that trains alone first: docs/methods.md says for how long, and of
    ft ``loss.alone`` must be True meanwhile.

    Args:
        loss: a `kdexp.contracts.FeatureLoss`, built from the pair.
        pair: see `kdexp.features.pair_of`. Its networks get the hooks; they are no part of this module.
    """

    def __init__(self, loss: nn.Module, pair: TeacherStudentPair) -> None:
        super().__init__()
        self.loss = loss
        reads = cast(FeatureLoss, loss)
        self._student = Reader(pair.student.network, [_LOGITS, *reads.student_paths])
        self._teacher = Reader(pair.teacher.network, [_LOGITS, *reads.teacher_paths])

    def forward(self, batch: Batch | None = None) -> Tensor:
        """The scalar term, before its weight, of the batch that both networks ran on last.

        Args:
            batch: what they ran on, for a loss that needs it (CRD wants its index).

        Raises:
            ValueError: a network has not run since the last call; or see the loss.
        """
        student, teacher = self._outputs("student", self._student), self._outputs("teacher", self._teacher)
        return cast(Tensor, self.loss(student, teacher, batch))

    def _outputs(self, name: str, reader: Reader) -> Outputs:
        features = reader.taken()
        if _LOGITS not in features:
            raise ValueError(f"the {name} must run before each call of its feature loss, got no output since the last")
        return Outputs(features.pop(_LOGITS), features)

    def close(self) -> None:
        """Take the hooks off both networks."""
        self._student.close()
        self._teacher.close()

    def __enter__(self) -> "HookedLoss":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
