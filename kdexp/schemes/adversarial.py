"""What schemes share that train on adversarial examples, which are made inside the step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.config.require import Values, is_number, require
from kdexp.contracts import Batch, Kind
from kdexp.data.settings import Dataset
from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.kl import kl
from kdexp.losses.outcomes import outcomes
from kdexp.metrics.mean import Mean
from kdexp.metrics.rows import right
from kdexp.robustness.attacks import PIXELS, Attack, Objective, in_eval_mode
from kdexp.schemes.base import Scheme, SchemeContext
from kdexp.training.batches import as_batch
from kdexp.training.distiller import Distiller, OptimizerFactory

Terms = dict[str, tuple[float, Tensor]]


@dataclass(frozen=True, kw_only=True)
class AdversarialScheme(Scheme, ABC):
    """A scheme that trains on adversarial examples.

    That its settings have an ``attack`` is how it is known, before it is imported, that ``val/robust_acc`` is measured.

    Attributes:
        attack: the settings of `kdexp.robustness.attacks.Attack`, less ``bounds``.
    """

    attack: Values

    @abstractmethod
    def kind(self) -> Callable[..., "AdversarialDistiller"]:
        """The training, with the scheme's own settings."""

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the attack."""
        super().check(setting, dataset)
        require(isinstance(self.attack, Mapping), f"{setting}.attack", "must be the settings of an attack", self.attack)
        for key, value in self.attack.items():
            numeric = key in ("eps", "steps", "abs_stepsize")
            require(not numeric or is_number(value), f"{setting}.attack.{key}", "must be a number", value)
        try:
            self._attack_on(dataset)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{setting}.attack: {error}") from error

    def check_feature_loss(self, losses: Collection[str]) -> None:
        """Check that there is none."""
        require(not losses, "feature_loss", f"must be empty with scheme={self.name}", "+".join(losses))

    def distiller(self, context: SchemeContext) -> Callable[..., Distiller]:
        """What `kind` gives, with the attack."""
        dataset = context.dataset
        mean, std = (list(dataset.mean), list(dataset.std)) if _has_images(dataset) else ([0.0], [1.0])
        return partial(self.kind(), attack=self._attack_on(dataset), mean=mean, std=std, teacher=context.teacher)

    def _attack_on(self, dataset: Dataset) -> Attack:
        return Attack(**self.attack, bounds=PIXELS if _has_images(dataset) else None)


def _has_images(dataset: Dataset) -> bool:
    return len(dataset.input_shape) == 3


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
        optimizer: OptimizerFactory,
        *,
        attack: Attack,
        mean: Sequence[float],
        std: Sequence[float],
        **settings: Any,
    ) -> None:
        super().__init__(student, optimizer, **settings)
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
        return lambda inputs: len(inputs) * cross_entropy(self.student(inputs), target, kind=self.task.kind)

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """As ever, and accuracy under attack."""
        super().validation_step(batch, batch_idx)
        batch = as_batch(batch)
        # Lightning validates in inference mode, whose tensors have no gradient.
        with torch.inference_mode(False), torch.no_grad():
            batch = Batch(batch.inputs.clone(), batch.target.clone(), batch.index.clone())
            moved = self.attacked(self.wrong(batch.target), batch)
            hits = right(self.student(moved), batch.target, self.task.kind)
        self._robust_acc.update(hits.sum(), len(hits))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        super().on_validation_epoch_end()
        self.log_epoch("val", {"robust_acc": self._robust_acc.compute()})
        self._robust_acc.reset()


def divergence(first: Tensor, second: Tensor, kind: Kind) -> Tensor:
    """``KL(first || second)`` of two networks' logits, with a gradient for both; (N,), or (N, C) for labels."""
    log_p, log_q = (outcomes(logits, logits, kind)[0].log_softmax(1) for logits in (first, second))
    return kl(log_p, log_q)
