"""One training, of a student or of a teacher: Trainer, checkpoints, resume, the table of epochs, what is shown."""

import logging
import resource
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Checkpoint, RichProgressBar
from pytorch_lightning.loggers import Logger

from kdexp import signals
from kdexp.config.require import Values
from kdexp.training.checkpoints import (
    AtomicCheckpointIO,
    BestAndLastCheckpoint,
    checkpoint_content,
    newest_good,
    refuse_foreign,
)
from kdexp.training.distiller import Distiller
from kdexp.training.epoch_table import MetricsCSVCallback
from kdexp.training.lightning_internals import use_child_ranks, use_fast_epoch_loop
from kdexp.training.step_watch import Diverged

log = logging.getLogger(__name__)

Pruner = Callable[[Sequence[Mapping[str, float]], int], str | None]
"""Is shown the table of epochs, and says why the training is not worth going on, or None."""


class TrialPruned(Exception):
    """A training was not worth going on."""

    status = "pruned"  # in results.json


@dataclass(frozen=True)
class FitResult:
    """What a training left behind.

    Attributes:
        best: checkpoint of the best epoch.
        last: checkpoint of the last epoch.
        monitor: the metric that chose the best epoch, see `Distiller.monitor`.
        best_epoch: its number, from 0.
        best_value: of the metric, in that epoch.
        last_epoch: number of the last epoch.
        epochs: the table of epochs: one row an epoch, as in metrics.csv.
        seconds: duration of each epoch of this process, validation included.
        device: where the training ran.
    """

    best: Path
    last: Path
    monitor: str
    best_epoch: int
    best_value: float
    last_epoch: int
    epochs: list[dict[str, float]]
    seconds: list[float]
    device: torch.device


def fit(
    module: Distiller,
    data: pl.LightningDataModule,
    folder: Path,
    settings: Values,
    *,
    owner: str,
    loggers: Sequence[Logger] = (),
    title: str = "student",
    pruner: Pruner | None = None,
) -> FitResult:
    """Train to the end, or from the last good checkpoint in the folder to the end.

    Args:
        module: what to train.
        data: its data.
        folder: ``checkpoints/`` and ``metrics.csv`` go here. When there are checkpoints, the training continues.
        settings: the keys of conf/trainer/base.yaml that Lightning's Trainer takes.
        owner: identifies the training, see `refuse_foreign`.
        loggers: where metrics go besides metrics.csv.
        title: what the progress display calls it.
        pruner: asked after each epoch, once that is saved, by rank 0; either every rank has one or none.

    Returns:
        Where the results are. Under several processes every rank returns.

    Raises:
        TrialPruned: the pruner said so.
        Diverged: a loss, a weight or a validation metric became NaN or Inf; the checkpoints are of the epoch before.
        ValueError: the checkpoints are another training's.
    """
    checkpoints = folder / "checkpoints"
    resumed = newest_good(checkpoints)
    refuse_foreign(checkpoints, owner)
    on_terminal = sys.stdout.isatty()
    table = MetricsCSVCallback(folder / "metrics.csv", title, say_every_seconds=None if on_terminal else 5.0)
    keeper = BestAndLastCheckpoint(checkpoints, owner)
    with warnings.catch_warnings():
        ignore_known_warnings()
        callbacks = [table, keeper, *([PruningCallback(pruner, table)] if pruner is not None else [])]
        trainer = _trainer(settings, folder, callbacks, loggers, on_terminal=on_terminal)
        use_fast_epoch_loop(trainer)
        use_child_ranks(trainer)
        if resumed is not None:
            log.info("%s: continuing from %s", title, resumed)
            table.restore(checkpoint_content(resumed), module.monitor)
        try:
            with signals.ctrl_c_kept():
                trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        except Diverged as error:  # data with NaN or Inf were refused before
            raise Diverged(f"{title}: {error}; no sample held in memory has NaN or Inf") from error
    return FitResult(
        best=keeper.best,
        last=keeper.last,
        monitor=keeper.monitor or module.monitor,
        best_epoch=keeper.best_epoch,
        best_value=keeper.best_value,
        last_epoch=settings["max_epochs"] - 1,
        epochs=table.rows,
        seconds=table.seconds,
        device=trainer.strategy.root_device,
    )


def _trainer(
    settings: Values,
    folder: Path,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    *,
    on_terminal: bool,
) -> pl.Trainer:
    quiet_lightning()
    single = settings["devices"] == 1 and settings.get("num_nodes", 1) == 1
    return pl.Trainer(
        **settings,
        default_root_dir=folder,
        callbacks=[*callbacks, *([RichProgressBar(leave=False)] if on_terminal else [])],
        enable_progress_bar=on_terminal,
        logger=list(loggers),
        # A teacher trains on one device, also inside a launched rank: it is not one of the rank's peers.
        plugins=[AtomicCheckpointIO(), *([LightningEnvironment()] if single else [])],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


def quiet_lightning(level: int = logging.WARNING) -> None:
    """Let Lightning log nothing below a level."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(level)


def peak_memory(device: torch.device) -> int:
    """Bytes at most so far: of tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux and in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def ignore_known_warnings() -> None:
    """Do not show what Lightning warns of in every training."""
    for message in (
        # Lightning's loaders use torch's LeafSpec: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
        ".*LeafSpec.*",
        # Advice on workers and on the logging interval; small data on a small machine are meant to be like this.
        ".*does not have many workers.*",
        ".*number of training batches.*",
        # A loss's copy of the teacher's classifier is in eval mode, as the teacher is:
        # https://github.com/Lightning-AI/pytorch-lightning/pull/18951
        ".*module\\(s\\) in eval mode.*",
        # A run that is continued writes its checkpoints where they were.
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=message)


class PruningCallback(Checkpoint):
    """Ends a training that is not worth going on. A `Checkpoint` only in name: it comes after those that save."""

    def __init__(self, pruner: Pruner, table: "MetricsCSVCallback") -> None:
        self._judge, self._table = pruner, table

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A training that is continued may have been judged when it was killed."""
        if self._table.rows:
            self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask."""
        reason = self._judge(self._table.rows, trainer.max_epochs or 0) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            raise TrialPruned(reason)
