"""The soft term of Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022, arXiv 2203.08679)."""

import torch
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import (
    check_temperature,
    class_numbers,
    labelled_mean,
    of_class,
    of_other_classes,
    outcomes,
    warn_once,
)
from kdexp.losses.shapes import check_scalars


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    *,
    tckd_weight: float = 1.0,
    nckd_weight: float = 8.0,
    kind: Kind = "multiclass",
) -> Tensor:
    """``T^2 * (tckd_weight * KL(b_t || b_s) + nckd_weight * KL(r_t || r_s))``.

    b = (p_y, 1 - p_y) is the true class y against all others, and r the distribution over those others, both at
    temperature T. Plain KD is the case of tckd_weight = 1 and nckd_weight = 1 - p_t(y), sample by sample: it
    mutes the second part just where the teacher is sure.

    Public implementations take the logarithm of a softmax and mask the true class with a logit of -1000: in float16
    that gives NaN from a logit gap of about 20 on, in float32 from 120 on. Here all is done on logits, with the true
    class left out. The paper calls the weights alpha and beta; alpha is another thing in kdexp. The authors let the
    weight of the whole rise linearly over the first 20 epochs.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.
        target: see `kdexp.contracts.Kind`. The mean is over what is labelled, and 0 when nothing is; a mixed target
            counts as its largest share.
        temperature: T > 0; published: 4 (CIFAR-100), 1 (ImageNet).
        tckd_weight: of the target class part; published: 1.
        nckd_weight: of the non-target part; published on CIFAR-100: 2 for resnet56 -> 20 and 110 -> 32; 6 for
            vgg13 -> vgg8 or mobilenetv2 and from wrn_40_2; 8 from resnet32x4, resnet50 -> mobilenetv2 and
            wrn_40_2 -> shufflenetv1. On ImageNet: 0.5, or 2 for resnet50 -> mobilenet.
        kind: what the logits mean; a sigmoid has two classes.

    Returns:
        Scalar >= 0; 0 when student and teacher are equal.

    Warns:
        UserWarning: once in a process, two classes: what is left without the true one is a single class, and the
            non-target part has no gradient.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    check_temperature(temperature)
    check_scalars(tckd_weight=tckd_weight, nckd_weight=nckd_weight)
    student, teacher = outcomes(student_logits, teacher_logits, kind)
    if student.shape[1] == 2:
        warn_once("loss=dkd: the non-target term has no gradient with 2 classes")
    classes = class_numbers(target, student, kind)
    own, others = zip(*(_decoupled(logits / temperature, classes) for logits in (student, teacher)), strict=True)
    per_sample = tckd_weight * kl(own[1], own[0]) + nckd_weight * kl(others[1], others[0])
    return temperature**2 * labelled_mean(per_sample, classes)


def _decoupled(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the true class against the rest (N, 2, ...), and within the rest (N, C - 1, ...)."""
    others = of_other_classes(logits, classes)
    pair = torch.stack((of_class(logits, classes), others.logsumexp(1)), 1)
    return pair.log_softmax(1), others.log_softmax(1)


class DKD(nn.Module):
    """`dkd` as a module.

    Args:
        temperature: T > 0.
        tckd_weight: see `dkd`.
        nckd_weight: see `dkd`.
        kind: see `dkd`.

    Attributes:
        temperature: the current T; a schedule may set it.

    Raises:
        ValueError: temperature <= 0.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        tckd_weight: float = 1.0,
        nckd_weight: float = 8.0,
        kind: Kind = "multiclass",
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self._tckd_weight, self._nckd_weight = tckd_weight, nckd_weight
        self._kind: Kind = kind

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `dkd`."""
        return dkd(
            student_logits,
            teacher_logits,
            target,
            self.temperature,
            tckd_weight=self._tckd_weight,
            nckd_weight=self._nckd_weight,
            kind=self._kind,
        )
