"""What a few real training steps show: each term of the loss, its gradients, the logits, time and memory."""

import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor
from torch.optim import Optimizer

from kdexp.contracts import Batch
from kdexp.data.data_module import DataModule
from kdexp.training.distiller import Distiller
from kdexp.training.fit import peak_memory, quiet_lightning
from kdexp.training.settings import Trainer

CHECKED_BATCHES = 5
"""The terms of the loss are measured on so many training batches; later steps are only timed."""

_TIMED_STEPS, _TIMED_SECONDS = 20, 5.0
_VAL_BATCHES = 4


@contextmanager
def caught_warnings(into: list[str]) -> Iterator[None]:
    """Note what losses and networks warn of, each message once, instead of printing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            own = [w for w in caught if issubclass(w.category, UserWarning) and not _is_of_torch(w.filename)]
            into += [text for text in dict.fromkeys(str(w.message) for w in own) if text not in into]


def _is_of_torch(file: str) -> bool:
    return Path(file).is_relative_to(Path(torch.__file__).parent)


@dataclass
class MeasuredTerm:
    """A term of the loss over the checked batches.

    Attributes:
        weight: its factor in the first epoch.
        values: its value in each batch, before the factor.
        norms: of the gradient of the weighted term in the student's parameters; empty without a weight.
        cosines: of that gradient with the first weighted term's (the hard one's, as a rule); empty for that itself.
    """

    weight: float = 0.0
    values: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)


@dataclass
class Cost:
    """Time and memory of a few steps.

    Attributes:
        steps: batches trained on.
        epoch_steps: batches in an epoch of the run.
        step_seconds: mean duration of a step, loading included; NaN when the run is too short to tell.
        val_seconds: mean duration of a validation batch; NaN likewise.
        peak_bytes: most memory in use; on a GPU that of the timed steps, else the whole process's.
        optimizer_bytes: size of the optimizer's state.
        on_gpu: whether the steps ran on a GPU.
    """

    steps: int = 0
    epoch_steps: int = 0
    step_seconds: float = math.nan
    val_seconds: float = math.nan
    peak_bytes: int = 0
    optimizer_bytes: int = 0
    on_gpu: bool = False


class InspectionCallback(pl.Callback):
    """Measures the first steps of a training, times the next, and then stops it.

    Args:
        caught: gets the warnings of losses and networks.
        val_inputs: normalized; the teacher's logits of them are noted before the training.

    Attributes:
        terms: name -> what was measured, of the terms that act on the student.
        student_logits: (N, C), of each checked batch, on the CPU.
        teacher_logits: likewise; empty without a teacher.
        teacher_before: the teacher's logits of `val_inputs` before the training, where the teacher is a network.
        val_inputs: on the training's device.
        batch: the last checked one.
        unused: trainable parameters to which the first step gave no gradient.
        cost: of the steps.
    """

    batch: Batch
    teacher_before: Tensor

    def __init__(self, caught: list[str], val_inputs: Tensor) -> None:
        self.terms: dict[str, MeasuredTerm] = {}
        self.student_logits: list[Tensor] = []
        self.teacher_logits: list[Tensor] = []
        self.val_inputs = val_inputs
        self.unused: list[str] = []
        self.cost = Cost()
        self._caught = caught
        self._timed_from: float | None = None
        self._timed_steps, self._validating = 0, 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the teacher's logits before the training."""
        assert isinstance(pl_module, Distiller)
        self._device, self._precision = trainer.strategy.root_device, trainer.precision_plugin
        self.cost.on_gpu = self._device.type == "cuda"
        self.val_inputs = self.val_inputs.to(self._device)
        if pl_module.teacher is not None and pl_module.teacher.takes_any_inputs:
            self.teacher_before = pl_module.teacher.to(self._device)(self.val_inputs).logits

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Measure the terms of the batch before it is trained on; or start the clock."""
        assert isinstance(pl_module, Distiller)
        self.cost.epoch_steps = int(trainer.num_training_batches)
        available = self.cost.epoch_steps * int(trainer.max_epochs or 1)
        if self.cost.steps < min(CHECKED_BATCHES, max(available // 2, 1)):
            with caught_warnings(self._caught), self._precision.train_step_context():
                self._measure(pl_module, batch)
        elif self._timed_from is None:
            if self.cost.on_gpu:
                torch.cuda.reset_peak_memory_stats(self._device)
            self._timed_from = self._now()

    def _measure(self, distiller: Distiller, batch: Batch) -> None:
        self.batch = batch
        logits, terms = distiller.training_terms(batch)
        self.student_logits.append(logits.detach().float().cpu())
        stats = distiller.gradient_stats({name: part for name, part in terms.items() if part[1].requires_grad})
        peers = tuple(f"_{name}" for name in getattr(distiller, "peers", {}))
        for name, (weight, value) in terms.items():
            if name.endswith(peers):  # a peer's own term
                continue
            measured = self.terms.setdefault(name, MeasuredTerm())
            measured.weight = weight
            measured.values.append(float(value.detach()))
            if weight > 0:
                measured.norms.append(float(stats.get(f"grad_norm_{name}", 0.0)))
            cosine = stats.get("grad_cosine" if name == "soft" else f"grad_cosine_{name}")
            measured.cosines += [] if cosine is None else [float(cosine)]
        outputs = distiller.teacher_on_train(batch)
        if outputs is not None:
            self.teacher_logits.append(outputs.logits.float().cpu())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Note which parameters have no gradient."""
        if trainer.global_step == 0:
            trained = ((name, p) for name, p in pl_module.named_parameters() if p.requires_grad)
            self.unused = [name for name, parameter in trained if parameter.grad is None]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count; stop when enough steps were timed."""
        self.cost.steps += 1
        if self._timed_from is None:
            return
        self._timed_steps += 1
        if self._timed_steps == _TIMED_STEPS or time.perf_counter() - self._timed_from > _TIMED_SECONDS:
            self._stop_clock()
            trainer.should_stop = True

    def _stop_clock(self) -> None:
        if self._timed_from is not None and math.isnan(self.cost.step_seconds):
            self.cost.step_seconds = (self._now() - self._timed_from - self._validating) / self._timed_steps

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of a validation."""
        self._validation_from = self._now()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        seconds = self._now() - self._validation_from
        self._validating += seconds if self._timed_from is not None else 0.0
        self.cost.val_seconds = seconds / sum(trainer.num_val_batches)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the clock, if the run ended before, and the memory."""
        self._stop_clock()
        state = (value for values in trainer.optimizers[0].state.values() for value in values.values())
        self.cost.optimizer_bytes = sum(value.nbytes for value in state if isinstance(value, Tensor))
        self.cost.peak_bytes = peak_memory(self._device)

    def teacher_seconds(self, distiller: Distiller) -> float:
        """Duration of the teacher's forward pass of the last checked batch."""
        with self._precision.forward_context():
            distiller.teacher_outputs(self.batch.inputs)  # warms up
            started = self._now()
            for _ in range(3):
                distiller.teacher_outputs(self.batch.inputs)
            return (self._now() - started) / 3

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def take_steps(
    distiller: Distiller, data: DataModule, settings: Trainer, callback: InspectionCallback, *, val_batches: int
) -> str:
    """Train on one device until the callback has seen enough.

    Args:
        distiller: what is trained.
        data: the student's.
        settings: the Trainer's config keys.
        callback: what measures.
        val_batches: batches of a validation of the run; at most 4 are taken here.

    Returns:
        Why the training stopped by itself; empty when it did not.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        quiet_lightning()
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.precision,  # type: ignore[arg-type]  # a name that Lightning knows: config.check
            max_epochs=settings.max_epochs,
            limit_train_batches=settings.limit_train_batches,
            limit_val_batches=min(val_batches, _VAL_BATCHES),
            accumulate_grad_batches=settings.accumulate_grad_batches,
            gradient_clip_val=settings.gradient_clip_val,
            default_root_dir=folder,
            callbacks=[callback],
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(distiller, datamodule=data)
        except RuntimeError as error:  # Diverged, out of memory, no gradient anywhere, shapes that differ
            return (str(error) or type(error).__name__).splitlines()[0]
    return ""
