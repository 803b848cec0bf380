"""Training on adversarial examples that are made inside the step: robust distillation, and its teachers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.contracts import UNLABELED, Batch, Task, as_batch
from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import class_numbers, of_class, outcomes
from kdexp.metrics.mean import Mean
from kdexp.metrics.rows import right
from kdexp.robustness.attacks import Attack, Objective, in_eval_mode
from kdexp.training.distiller import Distiller
from kdexp.training.terms import weighted_term

Terms = dict[str, tuple[float, Tensor]]


class AdversarialDistiller(Distiller):
    """What all of them share: the attack, and the best epoch by accuracy under it on the validation split.

    The attack sees the student in eval mode, as it will be used, so that it moves no batch statistics. Its random start
    is a function of (seed, epoch, sample). (The authors of TRADES, RSLAD and AdaAD start at 0.001 times normal noise;
    here all start at a uniformly random point of the ball.)

    Args:
        student: see `Distiller`; `Distiller` takes all other arguments but feature_losses.
        attack: how adversarial examples are made.
        mean: what images were normalised with: a value for each channel, or one for all. The attack works on images in
            [0, 1]; features are attacked as they come, with 0 and 1 here.
        std: likewise.
        settings: see `Distiller`.
    """

    monitor = "val/robust_acc"

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        student: nn.Module,
        *args: Any,
        attack: Attack,
        mean: Sequence[float],
        std: Sequence[float],
        **settings: Any,
    ) -> None:
        super().__init__(student, *args, **settings)
        self._attack = attack
        trailing = [1, 1] if attack.bounds is not None else []
        self.register_buffer("_mean", torch.tensor(mean).view(-1, *trailing), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(-1, *trailing), persistent=False)
        self._robust_acc = Mean()

    def attacked(self, objective: Objective, batch: Batch) -> Tensor:
        """Adversarial inputs, normalised like the batch's, that raise an objective of such inputs."""
        inputs = batch.inputs * self._std + self._mean
        if self._attack.bounds is not None:
            inputs = inputs.clamp(*self._attack.bounds)  # not further than rounding took them

        def of_pixels(moved: Tensor) -> Tensor:
            return objective((moved - self._mean) / self._std)

        index = batch.known_index("adversarial training")
        with in_eval_mode(self.student):
            moved = self._attack(of_pixels, inputs, index, seed=self.seed, epoch=self.current_epoch)
        return (moved - self._mean) / self._std

    def wrong(self, target: Tensor) -> Objective:
        """The student's cross entropy, summed; samples without a label stay at their random start."""
        return lambda inputs: len(inputs) * cross_entropy(self.student(inputs), target, task=self.task)

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """As ever, and accuracy under attack."""
        super().validation_step(batch, batch_idx)
        batch = as_batch(batch)
        # Lightning validates in inference mode, whose tensors have no gradient.
        with torch.inference_mode(False), torch.no_grad():
            batch = Batch(batch.inputs.clone(), batch.target.clone(), batch.index.clone())
            moved = self.attacked(self.wrong(batch.target), batch)
            hits = right(self.student(moved), batch.target, self.task)
        self._robust_acc.update(hits.sum(), len(hits))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        super().on_validation_epoch_end()
        self.log_epoch("val", {"robust_acc": self._robust_acc.compute()})
        self._robust_acc.reset()


class PGDTraining(AdversarialDistiller):
    """``CE(s(x'), y)``, with x' that raises it: Madry et al. 2018 (arXiv 1706.06083). There is no teacher."""

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the attacked batch, and the terms; see the class."""
        logits = self.student(self.attacked(self.wrong(batch.target), batch))
        return logits, {"hard": weighted_term(1.0, self.hard, logits, batch.target)}


class TRADES(AdversarialDistiller):
    """``CE(s(x), y) + beta * KL(s(x) || s(x'))``, with x' that raises the second: Zhang et al. 2019 (arXiv 1901.08573).

    beta is their 1 / lambda. There is no teacher.

    Args:
        student: see `AdversarialDistiller`.
        beta: weight of the second term, >= 0; published: 6.
        settings: see `AdversarialDistiller`.
    """

    def __init__(self, student: nn.Module, *args: Any, beta: float, **settings: Any) -> None:
        super().__init__(student, *args, **settings)
        self._beta = beta

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        with in_eval_mode(self.student), torch.no_grad():
            fixed = self.student(batch.inputs)
        moved = self.attacked(lambda inputs: divergence(fixed, self.student(inputs), self.task).sum(), batch)
        clean, attacked = self.student(batch.inputs), self.student(moved)
        return clean, {
            "hard": weighted_term(1.0, self.hard, clean, batch.target),
            "robust": weighted_term(self._beta, lambda: divergence(clean, attacked, self.task).mean()),
        }


class ARD(AdversarialDistiller):
    """``alpha * CE(s(x), y) + (1 - alpha) * L_soft(s(x'), t(x))``, with x' that raises ``CE(s(x'), y)``.

    Adversarially Robust Distillation: Goldblum et al. 2020 (arXiv 1905.09747), whose alpha is 1 - alpha here, and whose
    L_soft is T^2 times KL. (The authors' code divides KL by the number of classes as well.)
    """

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        moved = self.attacked(self.wrong(batch.target), batch)
        teacher = self._teacher_of(batch.inputs)
        clean, attacked = self.student(batch.inputs), self.student(moved)
        return clean, self._distilled(clean, batch.target, lambda: self._soften(attacked, teacher, batch.target))

    def _teacher_of(self, inputs: Tensor) -> Tensor:
        assert self.teacher is not None
        return self.teacher(inputs, self.temperature).logits

    def _soften(self, logits: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        assert self.soft_loss is not None
        value: Tensor = self.soft_loss(logits, teacher, target)
        return value

    def _distilled(self, clean: Tensor, target: Tensor, soft: Callable[[], Tensor]) -> Terms:
        return {
            "hard": weighted_term(self.alpha, self.hard, clean, target),
            "soft": weighted_term((1 - self.alpha) * self.weights.soft, soft),
        }


class RSLAD(ARD):
    """``w * L_soft(s(x'), t(x)) + (1 - w) * L_soft(s(x), t(x))``, with x' that raises ``L_soft(s(x'), t(x))``.

    Robust Soft Label Adversarial Distillation: Zi et al. 2021 (arXiv 2108.07969): no label is used (alpha 0), and
    L_soft is KL at T = 1 (loss=rslad). See `kdexp.losses.rslad`.

    Args:
        student: see `AdversarialDistiller`.
        adversarial_weight: w in [0, 1]; published: 5/6.
        settings: see `AdversarialDistiller`.
    """

    def __init__(self, student: nn.Module, *args: Any, adversarial_weight: float, **settings: Any) -> None:
        super().__init__(student, *args, **settings)
        self._adversarial_weight = adversarial_weight

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        teacher = self._teacher_of(batch.inputs)
        moved = self.attacked(
            lambda inputs: len(inputs) * self._soften(self.student(inputs), teacher, batch.target), batch
        )
        return self._on_both(batch, moved, teacher, teacher)

    def _on_both(self, batch: Batch, moved: Tensor, teacher: Tensor, of_moved: Tensor) -> tuple[Tensor, Terms]:
        clean, attacked = self.student(batch.inputs), self.student(moved)
        share = self._adversarial_weight

        def soft() -> Tensor:
            robust = self._soften(attacked, of_moved, batch.target)
            return share * robust + (1 - share) * self._soften(clean, teacher, batch.target)

        return clean, self._distilled(clean, batch.target, soft)


class AdaAD(RSLAD):
    """``w * L_soft(s(x'), t(x')) + (1 - w) * L_soft(s(x), t(x))``, with x' that raises ``KL(t(x') || s(x'))``.

    Adaptive Adversarial Distillation: Huang et al., "Boosting Accuracy and Robustness of Student Models via Adaptive
    Adversarial Distillation" (CVPR 2023): the teacher sees what the student sees, and the attack goes through
    both. It costs a pass through the teacher, there and back, in each step of the attack.

    Args:
        student: see `AdversarialDistiller`.
        adversarial_weight: w in [0, 1]; published: 1.
        settings: see `AdversarialDistiller`.
    """

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        teacher = self.teacher
        assert teacher is not None
        moved = self.attacked(
            lambda inputs: divergence(teacher.differentiable(inputs), self.student(inputs), self.task).sum(), batch
        )
        return self._on_both(batch, moved, self._teacher_of(batch.inputs), self._teacher_of(moved))


class IAD(ARD):
    """ARD's soft term, and ``(1 - A) * KL(s(x) || s(x'))`` for where the teacher is not to be trusted.

    Introspective Adversarial Distillation: Zhu et al. 2022 (arXiv 2106.04928), IAD-I as in the authors' code:
    ``A = t(x')_y^beta``, the teacher's probability of the truth on what the student is attacked with. In the first
    epochs A is 1. Samples without a label trust the teacher in proportion to its own confidence.

    Args:
        student: see `AdversarialDistiller`.
        beta: see above, >= 0; published: 0.1.
        begin: fraction of the epochs in which A is 1, in [0, 1); published: 60 of 200.
        settings: see `AdversarialDistiller`.
    """

    def __init__(self, student: nn.Module, *args: Any, beta: float, begin: float, **settings: Any) -> None:
        self._beta, self._begin = beta, begin
        super().__init__(student, *args, **settings)

    def set_weights(self, epoch: int, epochs: int) -> None:
        """As ever; and whether the epoch is after the first ones."""
        super().set_weights(epoch, epochs)
        self._introspective = epoch >= self._begin * epochs

    def training_terms(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The student's logits for the clean batch, and the terms; see the class."""
        moved = self.attacked(self.wrong(batch.target), batch)
        teacher = self._teacher_of(batch.inputs)
        clean, attacked = self.student(batch.inputs), self.student(moved)

        def soft() -> Tensor:
            distilled = self._soften(attacked, teacher, batch.target)
            if not self._introspective:
                return distilled
            doubt = 1 - self._trust(moved, batch.target)
            return distilled + (doubt * divergence(clean, attacked, self.task)).mean()

        return clean, self._distilled(clean, batch.target, soft)

    def _trust(self, moved: Tensor, target: Tensor) -> Tensor:
        assert self.teacher is not None
        said = self.teacher(moved).logits
        probability = outcomes(said, said, self.task)[0].softmax(1)
        truth = class_numbers(target, probability, self.task)
        truth = torch.where(truth == UNLABELED, probability.argmax(1), truth)
        return of_class(probability, truth) ** self._beta


def divergence(first: Tensor, second: Tensor, task: Task) -> Tensor:
    """``KL(first || second)`` of two networks' logits, with a gradient for both; (N,), or (N, C) for labels."""
    log_p, log_q = (outcomes(logits, logits, task)[0].log_softmax(1) for logits in (first, second))
    return kl(log_p, log_q)
