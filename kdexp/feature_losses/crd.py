"""The feature distillation term of Tian, Krishnan & Isola (ICLR 2020, arXiv 1910.10699).

"Contrastive Representation Distillation".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import UNLABELED, Batch, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, unit, vectors
from kdexp.losses.all_gather import gather
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_scalars, check_shapes


def nce(scores: Tensor, log_z: Tensor) -> Tensor:
    """Noise-contrastive estimation: ``mean_n (-log h(s_n0) - sum_k log(1 - h(s_nk)))``, ``h(s) = e^s / (e^s + K Z)``.

    How well the positive pair is told from the K pairs of noise. With P = e^s / (M Z) for M samples in the memory this
    is the authors' ``P / (P + K / M)``: M cancels. They divide by that sum plus 1e-7 and take the logarithm of the
    quotient; here all is done on logits, and nothing has to be added.

    Args:
        scores: (N, 1 + K), similarity / temperature; the positive pair's first. K >= 1.
        log_z: scalar, log Z; gets no gradient.

    Returns:
        Scalar > 0.

    Raises:
        ValueError: shapes that do not fit, or no noise.
    """
    check_shapes("N K", scores=scores)
    check_scalars(log_z=log_z)
    if scores.shape[1] < 2:
        raise ValueError(f"scores must have at least 2 columns, got {scores.shape[1]}")
    logits = at_least_fp32(scores) - log_z.detach() - math.log(scores.shape[1] - 1)
    return -(F.logsigmoid(logits[:, 0]) + F.logsigmoid(-logits[:, 1:]).sum(1)).mean()


class Negatives(nn.Module):
    """Draws the samples that a sample is told from: uniformly, with replacement, from those with another label.

    What is drawn depends on the sample's index and the step alone, not on the batch around it, the device or PyTorch's
    generator. In multi-label data another label is another set of labels. A sample without a label is told from all
    that have one. Where there are not two labels, all other samples are noise.

    Args:
        target: (samples,) or (samples, C): see `kdexp.contracts.TeacherStudentPair`.
        negatives: K, at most; no more are drawn than there are to choose from.

    Attributes:
        count: K.
        pool: indices of the samples to choose from, by class.
    """

    def __init__(self, target: Tensor, negatives: int) -> None:
        super().__init__()
        rows = target.flatten(1) if target.ndim > 1 else target[:, None]
        known = (rows != UNLABELED).all(1)
        classes = torch.unique(rows, dim=0, return_inverse=True)[1]
        if len(classes[known].unique()) < 2:
            known, classes = torch.ones_like(known), torch.arange(len(rows))
        # The pool is sorted by class, so that the samples of a class are one range to leave out.
        pool = known.nonzero().flatten()
        pool = pool[classes[pool].argsort(stable=True)]
        first = torch.searchsorted(classes[pool], classes)
        alike = torch.searchsorted(classes[pool], classes, right=True) - first
        self.count = min(negatives, len(pool) - int(alike.max()))
        for name, buffer in (("pool", pool), ("first", first), ("alike", alike)):
            self.register_buffer(name, buffer, persistent=False)
        self.pool: Tensor
        self.first: Tensor
        self.alike: Tensor

    def forward(self, index: Tensor, step: Tensor) -> Tensor:
        """Places (N, K) in the `pool` of the samples' negatives.

        Args:
            index: (N,) int64, of the samples.
            step: scalar, int64.

        Raises:
            ValueError: another shape.
        """
        check_shapes("N", index=index)
        check_scalars(step=step)
        key = _scrambled(_scrambled(step) ^ index)[:, None]
        numbers = _scrambled(key + torch.arange(self.count, device=index.device))
        first, alike = self.first[index, None], self.alike[index, None]
        place = numbers * (len(self.pool) - alike) >> 32
        return place + alike * (place >= first)


def _scrambled(numbers: Tensor) -> Tensor:
    """Well mixed integers in [0, 2^32), from integers >= 0: products stay below 2^63, on every device."""
    numbers = numbers & 0xFFFF_FFFF
    for _ in range(2):
        numbers = (numbers ^ numbers >> 16) * 0x45D_9F3B & 0xFFFF_FFFF
    return numbers ^ numbers >> 16


class CRD(nn.Module):
    """`nce` of the student's features against the teacher's remembered ones plus the same the other way round.

    The penultimate features of each network go through a linear layer to unit length. A memory keeps such an embedding
    of every sample for each network; a sample's own entry is its positive partner, K entries with another label are
    the noise ("exact" sampling of the authors' code; they draw without replacement where the data set allows). After
    each batch its entries move to ``momentum * old + (1 - momentum) * new``, at unit length; new is the mean where a
    batch has a sample more than once. Z is the mean of e^s in the first batch, and stays. The samples of a mixed batch
    (mixup) are remembered under the first partner's index.

    DDP ranks gather the embeddings, compute the same loss of the global batch and keep the same memory: N ranks equal
    one process. The memory is saved in checkpoints. It takes 2 * samples * dimension numbers, and each step
    2 * (batch + dimension) * those samples that have a label.

    Published (CIFAR-100): weight 0.8, K = 16384, temperature 0.07, momentum 0.5, dimension 128. The value depends on
    the step through the noise; it is not 0 where the student's features equal the teacher's.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        negatives: K, >= 1; reduced to the samples with another label where there are fewer.
        temperature: of the similarities, > 0.
        momentum: of the memory, in [0, 1).
        dimension: of the embeddings, >= 1.

    Raises:
        ValueError: a setting outside its range, penultimate features that are not vectors, or no labels.
    """

    def __init__(
        self,
        pair: TeacherStudentPair,
        *,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        dimension: int = 128,
    ) -> None:
        super().__init__()
        if negatives < 1:
            raise ValueError(f"feature_loss.crd.negatives must be at least 1, got {negatives}")
        if not temperature > 0:
            raise ValueError(f"feature_loss.crd.temperature must be > 0, got {temperature}")
        if not 0 <= momentum < 1:
            raise ValueError(f"feature_loss.crd.momentum must be in [0, 1), got {momentum}")
        if dimension < 1:
            raise ValueError(f"feature_loss.crd.dimension must be at least 1, got {dimension}")
        if not len(pair.target):
            rule = "needs the label of each training sample, in the order of their indices (TeacherStudentPair.target)"
            raise ValueError(f"feature_loss=crd {rule}, got none")
        self._temperature, self._momentum = temperature, momentum
        self.student_paths = [vectors("crd", pair.student)]
        self.teacher_paths = [vectors("crd", pair.teacher)]
        self._compared = Compared(pair, self.student_paths, self.teacher_paths)
        own = pair.student.shapes[self.student_paths[0]][-1]
        goal = pair.teacher.shapes[self.teacher_paths[0]][-1]
        self.student_embedding = nn.Linear(own, dimension)
        self.teacher_embedding = nn.Linear(goal, dimension)
        self.negatives = Negatives(pair.target, negatives)
        bound = math.sqrt(3 / dimension)  # uniform in [-bound, bound]: of unit length on average
        for name in ("student_memory", "teacher_memory"):
            self.register_buffer(name, torch.empty(len(pair.target), dimension).uniform_(-bound, bound))
        self.register_buffer("log_z", torch.zeros(2))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.student_memory: Tensor
        self.teacher_memory: Tensor
        self.log_z: Tensor
        self.step: Tensor

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `CRD`. Remembers the batch, of which it needs the index."""
        (own,), (goal,) = self._compared(student, teacher)
        if batch is None:
            raise ValueError("batch must be Batch(inputs, target, index) for feature_loss=crd, got None")
        known = batch.known_index("feature_loss=crd")
        check_shapes(f"{len(own)}", **{"batch.index": known})
        of_student = gather(unit(at_least_fp32(self.student_embedding(own))))
        of_teacher = gather(unit(at_least_fp32(self.teacher_embedding(goal.detach()))))
        index = gather(known)
        noise = self.negatives(index, self.step)
        with torch.autocast(index.device.type, enabled=False):  # it would do the products in half precision
            scores = [
                self._scores(of_student, self.teacher_memory, index, noise),
                self._scores(of_teacher, self.student_memory, index, noise),
            ]
        self._remember(index, of_student.detach(), of_teacher.detach(), scores)
        return nce(scores[0], self.log_z[0]) + nce(scores[1], self.log_z[1])

    def _scores(self, embeddings: Tensor, memory: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """Similarity / temperature, (N, 1 + K), of copies: the memory changes before the backward pass needs it."""
        own = (embeddings * memory[index]).sum(1, keepdim=True)
        # With all that noise is drawn from, of which some is picked: K rows for each sample would be more numbers.
        others = (embeddings @ memory[self.negatives.pool].T).gather(1, noise)
        return torch.cat((own, others), 1) / self._temperature

    @torch.no_grad()
    def _remember(self, index: Tensor, of_student: Tensor, of_teacher: Tensor, scores: list[Tensor]) -> None:
        now = torch.stack([side.flatten().logsumexp(0) - math.log(side.numel()) for side in scores])
        self.log_z.copy_(now.where(self.step == 0, self.log_z))
        self.step += 1
        same = (index[:, None] == index).to(of_student.dtype)
        shares = same / same.sum(1, keepdim=True)
        for memory, new in ((self.student_memory, of_student), (self.teacher_memory, of_teacher)):
            with torch.autocast(index.device.type, enabled=False):
                memory[index] = unit(self._momentum * memory[index] + (1 - self._momentum) * (shares @ new))
