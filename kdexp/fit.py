"""One training, of a student or of a teacher: Trainer, checkpoints, resume, the table of epochs, what is shown."""

import csv
import logging
import math
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Checkpoint, RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from kdexp import ranks
from kdexp.atomic import atomic_path
from kdexp.distiller import Distiller
from kdexp.loop import Steps

log = logging.getLogger(__name__)


Judge = Callable[[Sequence[Mapping[str, float]]], str | None]
"""Is shown the table of epochs, and says why the training is not worth going on, or None."""


class Pruned(Exception):
    """A training was not worth going on."""

    status = "pruned"  # in results.json


@dataclass(frozen=True)
class Fitted:
    """What a training left behind.

    Attributes:
        best: checkpoint of the epoch with the highest `Distiller.monitor`, validation accuracy (the first of them).
        last: checkpoint of the last epoch.
        epochs: the table of epochs: one row an epoch, as in metrics.csv.
        best_epoch: number of the best epoch, from 0.
        seconds: duration of each epoch of this process, validation included.
        device: where the training ran.
    """

    best: Path
    last: Path
    best_epoch: int
    epochs: list[dict[str, float]]
    seconds: list[float]
    device: torch.device


def fit(
    module: Distiller,
    data: pl.LightningDataModule,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    loggers: Sequence[Logger] = (),
    title: str = "student",
    judge: Judge | None = None,
) -> Fitted:
    """Train to the end, or from the last good checkpoint in the folder to the end.

    Args:
        module: what to train.
        data: its data.
        folder: ``checkpoints/`` and ``metrics.csv`` go here. When there are checkpoints, the training continues.
        settings: the keys of conf/trainer/base.yaml that Lightning's Trainer takes.
        loggers: where metrics go besides metrics.csv.
        title: what the progress display calls it.
        judge: asked after each epoch, once that is saved, by rank 0; either every rank has one or none.

    Returns:
        Where the results are. Under several processes every rank returns.

    Raises:
        Pruned: the judge said so.
    """
    checkpoints = folder / "checkpoints"
    on_terminal = sys.stdout.isatty()
    table = EpochTable(folder / "metrics.csv", title, say_every_seconds=None if on_terminal else 5.0)
    keeper = Keeper(checkpoints)
    single = settings["devices"] == 1 and settings.get("num_nodes", 1) == 1
    with warnings.catch_warnings():
        ignore_known_warnings()
        trainer = pl.Trainer(
            **settings,
            default_root_dir=folder,
            callbacks=[
                table,
                keeper,
                *([Judged(judge, table)] if judge is not None else []),
                *([RichProgressBar(leave=False)] if on_terminal else []),
            ],
            enable_progress_bar=on_terminal,
            logger=list(loggers),
            # A teacher trains on one device, also inside a launched rank: it is not one of the rank's peers.
            plugins=[SafeCheckpoints(), *([LightningEnvironment()] if single else [])],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
        )
        trainer.fit_loop.epoch_loop = Steps(trainer)
        ranks.take_over(trainer)
        resumed = newest_good(checkpoints)
        if resumed is not None:
            log.info("%s: continuing from %s", title, resumed)
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    best_epoch = max(range(len(table.rows)), key=lambda epoch: table.rows[epoch][module.monitor])
    device = trainer.strategy.root_device
    return Fitted(checkpoints / "best.ckpt", checkpoints / "last.ckpt", best_epoch, table.rows, table.seconds, device)


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


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent.

    Lightning stages a checkpoint in the system's temporary folder and moves it over, which is a copy when that folder
    is another file system: a kill or a full disk leaves half a file under the final name
    (https://github.com/Lightning-AI/pytorch-lightning/issues/21253). Here it is staged beside its place, flushed and
    renamed.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the checkpoint.

        Raises:
            OSError: it could not be written.
        """
        with atomic_path(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's own archive writer, which does not say why
                raise OSError(f"could not write {path}: is the disk full?") from error


def newest_good(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are renamed ``*.corrupt`` and not used."""
    for staged in checkpoints.glob(".*.ckpt"):  # when its process was killed
        staged.unlink()
    # By name: a copy of the folder has other times.
    for path in (checkpoints / "last.ckpt", checkpoints / "best.ckpt"):
        if path.is_file():
            if _is_whole(path):
                return path
            log.warning("checkpoint %s is damaged; it is set aside", path)
            path.replace(path.with_suffix(".ckpt.corrupt"))
    return None


def _is_whole(path: Path) -> bool:
    # torch.save writes a zip archive, which holds a checksum of each of its records.
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


class Keeper(Checkpoint):
    """best.ckpt, of the first epoch with the highest validation accuracy, and last.ckpt, of the last epoch.

    (Lightning's ModelCheckpoint writes last.ckpt only when it writes best.ckpt too, and forgets the best score when
    the run folder was moved.) Best before last: a kill between the two leaves a pair from which the continued run gets
    to the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.best, self.last = folder / "best.ckpt", folder / "last.ckpt"
        self.best_epoch, self._best_score = -1, -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; after the module's own epoch end, which refuses a diverged epoch."""
        assert isinstance(pl_module, Distiller)
        score = pl_module.epoch_metrics[pl_module.monitor]
        if score > self._best_score:
            self.best_epoch, self._best_score = trainer.current_epoch, score
            trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoints."""
        return {"best_epoch": self.best_epoch, "best_score": self._best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that is continued."""
        self.best_epoch, self._best_score = state_dict["best_epoch"], state_dict["best_score"]


class Judged(Checkpoint):
    """Ends a training that is not worth going on. A `Checkpoint` only in name: it comes after those that save."""

    def __init__(self, judge: Judge, table: "EpochTable") -> None:
        self._judge, self._table = judge, table

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A training that is continued may have been judged when it was killed."""
        if self._table.rows:
            self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask."""
        reason = self._judge(self._table.rows) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            raise Pruned(reason)


class EpochTable(Checkpoint):
    """metrics.csv, one row an epoch, and a line on the console now and then.

    The file is rewritten whole, so that it is never half a table. (Lightning's CSVLogger deletes the rows of an
    interrupted run when it is continued.) A `Checkpoint` only in name: Lightning calls those after the module's own
    epoch end, when the epoch's metrics are there.
    """

    def __init__(self, path: Path, title: str, say_every_seconds: float | None) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self._path, self._title, self._say_every = path, title, say_every_seconds
        self._said = 0.0
        if path.is_file():
            with path.open() as file:
                self.rows = [{k: _number(text) for k, text in row.items() if text} for row in csv.DictReader(file)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs that are not run again."""
        self.rows = [row for row in self.rows if row["epoch"] < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        self.seconds.append(time.perf_counter() - self._started)
        assert isinstance(pl_module, Distiller)
        progress = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self.rows.append(progress | pl_module.epoch_metrics)
        if trainer.is_global_zero:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(self.rows)
            self._say(trainer)

    def _say(self, trainer: pl.Trainer) -> None:
        if self._say_every is None:
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        if time.perf_counter() - self._said < self._say_every and done < total:
            return
        self._said = time.perf_counter()
        row = self.rows[-1]
        shown = " ".join(f"{name} {row[name]:.4f}" for name in ("train/loss", "val/loss", "val/acc") if name in row)
        left = (total - done) * sum(self.seconds) / len(self.seconds)
        log.info("%s: epoch %d/%d  %s  %.0f s left", self._title, done, total, shown, left)


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
