"""The LightningModule that trains a student, with a teacher or without."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kdexp.contracts import Batch, Outputs, Task, TaskMetrics
from kdexp.features import Reader
from kdexp.teacher.cached_outputs import TeacherOutputCache
from kdexp.teacher.teacher import Teacher
from kdexp.training.batches import as_batch
from kdexp.training.epoch_means import BatchedMetrics, EpochMeans
from kdexp.training.step_watch import DivergenceWatch, gradient_stats, stop_if_weights_diverged
from kdexp.training.terms import PrecomputedStep, Term, TermWeights, check_teacher, total_loss, weighted_term

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes the optimizer from the parameters to train."""

Schedule = Callable[[float], float]
"""Training progress in [0, 1] (first epoch 0, last epoch 1) -> value."""


class Distiller(pl.LightningModule):
    r"""Trains a student on ``L = alpha * L_hard + (1 - alpha) * L_soft + sum_k weight_k * L_feature_k``.

    alpha weighs the HARD-label term. Without a soft loss the logits' part is the hard term alone, whatever alpha is.
    The state dict holds the student and the losses' own parameters (adapters), if they have any; never the teacher.

    It takes any Trainer and any DataLoader (docs/own_training.md). A batch is (x, y): inputs as the student takes them
    and a target as in `kdexp.contracts.Kind`; or (x, y, index), index being each sample's number in the training data,
    for what needs it (CRD, cached outputs, adversarial training); or a `kdexp.contracts.Batch`. Tuples for validation
    may differ from epoch to epoch, so the teacher runs on them each time; batches may not, and it runs on them once.

    Args:
        student: (N, ...) float inputs to (N, C) logits.
        optimizer: see `OptimizerFactory`.
        task: what a batch becomes: `kdexp.tasks.classification.Classification` or another.
        teacher: frozen; a network of one's own becomes ``Teacher([network])``. None trains the student alone, or with a
            soft loss that has no use for a teacher.
        soft_loss: ``forward(student_logits, teacher_logits, target) -> scalar``, or a `Term` of that. When
            `temperature` is given, its attribute of that name is set at the start of each epoch; a method
            ``on_epoch(epoch)``, if it has one, is called then. Its ``learned_temperature``, if it has one, is logged.
        feature_losses: name -> `Term` of a `kdexp.contracts.FeatureLoss`, built from `kdexp.features.pair_of`; they
            need a teacher of one network.
        alpha: in [0, 1]; a number, or a function of the training progress.
        temperature: > 0; a number, or a function of the training progress. None leaves the loss's own.
        scheduler: makes the learning-rate scheduler from the optimizer and the number of optimizer steps; stepped
            after each optimizer step.
        seed: with the epoch and the rank it seeds dropout at the start of every epoch, so that a resumed run draws
            what an uninterrupted one would.
        val_metrics: computed on the validation split after every epoch and logged as ``val/...``.
        train_metrics: the same for the training split, ``train/...``; computed on the augmented batches.
        gradient_stats_every_n_steps: how often the norms of both terms' gradients and their cosine are measured;
            0 = never.
        log_every_n_steps: how often ``train_step/...`` is sent to the loggers.

    Raises:
        ValueError: a teacher without a loss that learns from it, or such a loss without a teacher.

    Attributes:
        cache: the teacher's cached outputs, when they are to be used in place of the teacher.
        ahead: the next training step, when it has been computed already.
        task: see above.
        seed: see above.
        weights: factors of the terms in this epoch.
        teacher_on_val: outputs of a teacher of one network for the validation batches, filled in the first validation.
        monitor: the validation metric that selects the best epoch, one of `kdexp.metrics.monitor.DIRECTIONS`.
        tie_breaker: the validation metric that decides between equal epochs; None: the first of them is the best.
        epoch_metrics: what was logged in the epoch that is running or has just ended. (The Trainer's callback_metrics
            also keep what was last logged epochs ago.)
    """

    monitor = "val/acc"
    tie_breaker: str | None = "val/nll"
    _has_peers = False  # that take the teacher's place

    def __init__(
        self,
        student: nn.Module,
        optimizer: OptimizerFactory,
        *,
        task: Task,
        teacher: Teacher | nn.Module | None = None,
        soft_loss: nn.Module | Term | None = None,
        feature_losses: Mapping[str, Term] | None = None,
        alpha: float | Schedule = 0.1,
        temperature: float | Schedule | None = None,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        seed: int = 0,
        val_metrics: TaskMetrics | None = None,
        train_metrics: TaskMetrics | None = None,
        gradient_stats_every_n_steps: int = 0,
        log_every_n_steps: int = 50,
    ) -> None:
        super().__init__()
        self.student = student
        soft = soft_loss if isinstance(soft_loss, Term) or soft_loss is None else Term(soft_loss)
        self._soft, self._features = soft, dict(feature_losses or {})
        self.soft_loss = soft.loss if soft is not None else None
        self.feature_losses = nn.ModuleDict({name: term.loss for name, term in self._features.items()})
        self.teacher = Teacher([teacher], kind=task.kind) if isinstance(teacher, nn.Module) else teacher
        check_teacher(self.teacher, self.soft_loss, self._features, alpha, has_peers=self._has_peers)
        self.cache: TeacherOutputCache | None = None
        if self.teacher is not None:
            self.teacher.read(self._paths("teacher_paths"))
        self._read_student = Reader(student, self._paths("student_paths"))
        # What the feature losses remember is the same on all ranks, and can be large (CRD's memories): DDP need
        # not send it with every step. DDP looks for this name.
        names = [f"feature_losses.{name}" for name, _ in self.feature_losses.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = names
        self._optimizer, self._scheduler = optimizer, scheduler
        self.task = task
        self._alpha, self._temperature = alpha, temperature
        self.seed = seed
        self._gradient_stats_every = gradient_stats_every_n_steps
        self._log_every = log_every_n_steps
        self._val_metrics = val_metrics or task.metrics(fidelity=teacher is not None)
        self._train_metrics = BatchedMetrics(train_metrics) if train_metrics is not None else None
        self._means = EpochMeans()
        self._shown_weights: dict[str, float] = {}  # name of a term -> its whole factor, as it is logged
        self._divergence = DivergenceWatch()
        self._masks: set[str] = set()  # buffers with NaN or Inf from the beginning
        self.epoch_metrics: dict[str, float] = {}
        self.ahead: PrecomputedStep | None = None
        self.teacher_on_val: list[Outputs] = []
        self.alpha = _at(alpha, 0.0)
        self.temperature = _at(temperature, 0.0) if temperature is not None else 1.0
        self._set_temperature()
        self.set_weights(0, 1)

    def _paths(self, side: str) -> list[str]:
        return [path for loss in self.feature_losses.values() for path in getattr(loss, side)]

    def forward(self, inputs: Tensor) -> Tensor:
        """The student's logits (N, C) for normalised inputs (N, ...)."""
        return cast(Tensor, self.student(inputs))

    # Training

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device; Lightning does not see it."""
        in_stages = any(term.init_fraction for term in self._features.values())
        if self.trainer.max_epochs == -1 and (in_stages or callable(self._alpha) or callable(self._temperature)):
            rule = "must be given where alpha, temperature or a term's init stage depends on the training progress"
            raise ValueError(f"Trainer.max_epochs {rule}, got -1")
        self._masks = {name for name, buffer in self.named_buffers() if not buffer.isfinite().all()}
        if self.cache is not None:
            self.cache.device = self.device
            if "val" in self.cache.splits:
                self.cache.prepare("val")
        elif self.teacher is not None:
            self.teacher.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Set alpha, temperature and the random state of this epoch."""
        self.epoch_metrics = {}
        epochs = self.trainer.max_epochs or 1
        progress = self.current_epoch / max(epochs - 1, 1)
        self.alpha = _at(self._alpha, progress)
        if self._temperature is not None:
            self.temperature = _at(self._temperature, progress)
            self._set_temperature()
        self.set_weights(self.current_epoch, epochs)
        for loss in (self.soft_loss, *self.feature_losses.values()):
            on_epoch = getattr(loss, "on_epoch", None)
            if on_epoch is not None:
                on_epoch(self.current_epoch)
        if self.cache is not None:
            self.cache.prepare("train", self.current_epoch)
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) & 0x7FFF_FFFF)

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """One step: the loss of a batch, with its parts logged."""
        batch = as_batch(batch)
        logits, terms = self.training_terms(batch)
        loss = total_loss(terms)
        if self.measures_gradients() and len(terms) > 1:
            self._record("", self.gradient_stats(terms), 1)
        self._shown_weights = {name: weight for name, (weight, _) in terms.items()}
        parts = self._record("loss_", {"": loss} | {name: term for name, (_, term) in terms.items()}, len(logits))
        self._divergence.watch(parts[1:], terms, self.trainer)
        if self._train_metrics is not None:
            self._train_metrics.add(logits.detach(), batch.target)
        return loss

    def backward(self, loss: Tensor, *args: object, **kwargs: object) -> None:
        """Give the trained parameters their gradients."""
        if self.ahead is None:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
            return
        trained = (parameter for parameter in self.student.parameters() if parameter.requires_grad)
        for parameter, gradient in zip(trained, self.ahead.gradients, strict=True):
            parameter.grad = gradient
        self.ahead = None

    def measures_gradients(self) -> bool:
        """Whether the terms' gradients are measured in this step."""
        return self._gradient_stats_every > 0 and self.global_step % self._gradient_stats_every == 0

    def training_terms(self, batch: Batch) -> tuple[Tensor, Mapping[str, tuple[float, Tensor]]]:
        """The student's logits (N, C); and name -> (weight, value) of each part of the loss.

        A subclass with another loss gives its terms here.
        """
        if self.ahead is not None:
            return self.ahead.logits, self.ahead.terms
        teacher = self.teacher_on_train(batch)
        student = self.student_outputs(batch.inputs)
        terms = self.logit_terms(student, teacher, batch, self.weights.logits)
        for name, loss in self.feature_losses.items():
            terms[name] = weighted_term(self.weights.features[name], loss, student, teacher, batch)
        return student.logits, terms

    def teacher_on_train(self, batch: Batch) -> Outputs | None:
        """The teacher's outputs for a training batch, cached or by a forward pass; None without a teacher."""
        if self.cache is not None:
            index = batch.known_index("cached outputs of the teacher")
            return self.cache("train", index, self.temperature, self.current_epoch)
        return self.teacher_outputs(batch.inputs)

    def student_outputs(self, inputs: Tensor) -> Outputs:
        """The student's logits (N, C), and the features that the losses read."""
        return self._read_student(inputs)

    def teacher_outputs(self, inputs: Tensor) -> Outputs | None:
        """The same of the teacher at this epoch's temperature, by a forward pass; None without a teacher."""
        return self.teacher(inputs, self.temperature) if self.teacher is not None else None

    def set_weights(self, epoch: int, epochs: int) -> None:
        """Set the weight of each term in this epoch (from 0) of so many; while a term trains alone, all others have 0.

        A subclass with weights of its own sets them here, too.
        """
        initial = {name for name, term in self._features.items() if term.in_init_stage(epoch, epochs)}
        self.weights = TermWeights(
            logits=0.0 if initial else 1.0,
            soft=self._soft.weight_at(epoch, epochs) if self._soft is not None else 0.0,
            features={
                name: term.weight_at(epoch, epochs) if not initial or name in initial else 0.0
                for name, term in self._features.items()
            },
        )
        for name, loss in self.feature_losses.items():
            if hasattr(loss, "in_init_stage"):
                loss.in_init_stage = name in initial  # type: ignore[assignment]

    def logit_terms(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, share: float = 1.0
    ) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, value) of the hard and the soft term.

        Args:
            student: its outputs.
            teacher: outputs for the same batch; None for a soft loss that needs no teacher.
            batch: what both saw.
            share: factor of both weights.
        """
        weights = self.logit_weights(share)
        terms = {"hard": weighted_term(weights["hard"], self.task.hard, student, batch)}
        if self.soft_loss is not None:
            # A soft loss without a teacher does not look at what stands in the teacher's place.
            others = teacher if teacher is not None else Outputs(student.logits.detach())
            terms["soft"] = weighted_term(weights["soft"], self.task.soft, self.soft_loss, student, others, batch)
        return terms

    def logit_weights(self, share: float = 1.0) -> dict[str, float]:
        """The weights of the hard and the soft term in this epoch, times a fraction."""
        if self.soft_loss is None:
            return {"hard": share}
        return {"hard": share * self.alpha, "soft": share * (1 - self.alpha) * self.weights.soft}

    def gradient_stats(self, terms: Mapping[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
        """See `kdexp.training.step_watch.gradient_stats`."""
        return gradient_stats(terms, [p for p in self.student.parameters() if p.requires_grad])

    def _record(self, prefix: str, values: Mapping[str, Tensor], weight: int) -> Tensor:
        """Add values to the epoch's means and, on logging steps, send them to the loggers as they are.

        Args:
            prefix: of the names.
            values: scalars by name; the same names at every call with this prefix in an epoch.
            weight: how much they count in the mean.

        Returns:
            (values,) the values, without a gradient.
        """
        names, stacked = self._means.add(prefix, values, weight)
        if self.global_step % self._log_every == 0 and self.loggers:
            step = self._with_weights(dict(zip(names, stacked.tolist(), strict=True)))
            for logger in self.loggers:
                logger.log_metrics({f"train_step/{name}": value for name, value in step.items()}, self.global_step)
        return stacked

    def _with_weights(self, values: dict[str, float]) -> dict[str, float]:
        """Add what each part contributes to the loss: a weight is the same in all steps of an epoch."""
        several = len(self._shown_weights) > 1
        parts = {name: weight for name, weight in self._shown_weights.items() if several and f"loss_{name}" in values}
        return values | {f"weighted_{name}": weight * values[f"loss_{name}"] for name, weight in parts.items()}

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means; refuse to go on (and to write a checkpoint) after a bad step."""
        self._divergence.stop_if_loss_diverged(self.trainer)
        buffers = (buffer for name, buffer in self.named_buffers() if name not in self._masks)
        stop_if_weights_diverged([*self.parameters(), *buffers], self.epoch_metrics, self.trainer)
        values = self._with_weights(self._means.pop(partial(self.trainer.strategy.reduce, reduce_op="sum")))
        if self._train_metrics is not None:
            values |= self._train_metrics.pop()
        if self.soft_loss is not None:
            values["alpha"] = self.alpha
            values["temperature"] = self.temperature
        learned = getattr(self.soft_loss, "learned_temperature", None)
        if learned is not None:
            values["learned_temperature"] = learned
        values["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_epoch("train", values)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take weights out of what they are a view of (`kdexp.sweeps.step_backends`): all of it would be saved."""
        for name, weight in checkpoint["state_dict"].items():
            if weight.untyped_storage().nbytes() > weight.nbytes:
                checkpoint["state_dict"][name] = weight.clone()

    # Validation

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Update the validation metrics with one batch."""
        if not isinstance(batch, Batch):
            del self.teacher_on_val[batch_idx:]  # a loader of one's own may give other samples in each epoch
            batch = as_batch(batch)
        student = self.student_outputs(batch.inputs)
        terms = self.validation_terms(student, batch, batch_idx)
        # The feature distillation losses stay out: some learn from each batch they see, or need the whole training set.
        loss = total_loss(terms) if any(weight > 0 for weight, _ in terms.values()) else None
        plain = self.validation_teacher_outputs(batch, batch_idx, 1.0)
        fidelity = plain.logits if plain is not None else None
        self._val_metrics.update(student.logits, batch.target, loss=loss, teacher_logits=fidelity)

    def validation_terms(self, student: Outputs, batch: Batch, batch_idx: int) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, value) of the parts of the validation loss, for the student's outputs of a batch."""
        teacher = self.validation_teacher_outputs(batch, batch_idx, self.temperature)
        if teacher is None and self.teacher is not None:
            return {"hard": (1.0, self.task.hard(student, batch))}
        return self.logit_terms(student, teacher, batch)

    def validation_teacher_outputs(self, batch: Batch, batch_idx: int, temperature: float) -> Outputs | None:
        """The teacher's outputs for a validation batch: cached, of an earlier epoch, or by a forward pass; or None."""
        if self.teacher is None or (self.cache is not None and "val" not in self.cache.splits):
            return None
        if self.cache is not None:
            return self.cache("val", batch.known_index("cached outputs of the teacher"), temperature)
        if len(self.teacher.networks) > 1:
            return self.teacher(batch.inputs, temperature)
        # Validation batches are the same in every epoch, and so are a frozen network's logits: computed once.
        if batch_idx == len(self.teacher_on_val):
            self.teacher_on_val.append(Outputs(self.teacher(batch.inputs).logits))
        return self.teacher_on_val[batch_idx]

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.log_epoch("val", self._val_metrics.compute())
        self._val_metrics.reset()

    def log_epoch(self, split: str, values: Mapping[str, float | Tensor]) -> None:
        """Log metrics of an epoch as ``SPLIT/NAME``, and note them in `epoch_metrics`."""
        named = {f"{split}/{name}": float(value) for name, value in values.items()}
        self.epoch_metrics |= named
        # All ranks hold the same synchronised values; Lightning cannot know that and warns unless it is told to sync.
        self.log_dict(named, on_step=False, on_epoch=True, sync_dist=self.trainer.world_size > 1)

    # Optimization

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the student and of the losses' own parameters; the scheduler steps with it."""
        optimizer = self._optimizer(p for p in self.parameters() if p.requires_grad)
        if self._scheduler is None:
            return optimizer
        scheduler = self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _set_temperature(self) -> None:
        if self.soft_loss is not None and self._temperature is not None:
            self.soft_loss.temperature = self.temperature  # type: ignore[assignment]


def _at(value: float | Schedule, progress: float) -> float:
    return value(progress) if callable(value) else value
