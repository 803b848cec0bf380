"""One training, of a student or of a teacher: Trainer, checkpoints, resume, the table of epochs, what is shown."""

import csv
import logging
import math
import pickle
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Checkpoint, RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from kdexp import monitor, ranks, signals
from kdexp.atomic import atomic_path
from kdexp.distiller import Distiller, Diverged
from kdexp.loop import Steps
from kdexp.pace import EVERY_SECONDS, duration

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
    settings: Mapping[str, Any],
    *,
    owner: str,
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
        owner: identifies the training, see `refuse_foreign`.
        loggers: where metrics go besides metrics.csv.
        title: what the progress display calls it.
        judge: asked after each epoch, once that is saved, by rank 0; either every rank has one or none.

    Returns:
        Where the results are. Under several processes every rank returns.

    Raises:
        Pruned: the judge said so.
        Diverged: a loss, a weight or a validation metric became NaN or Inf; the checkpoints are of the epoch before.
        ValueError: the checkpoints are another training's.
    """
    checkpoints = folder / "checkpoints"
    resumed = newest_good(checkpoints)
    refuse_foreign(checkpoints, owner)
    on_terminal = sys.stdout.isatty()
    table = EpochTable(folder / "metrics.csv", title, say_every_seconds=None if on_terminal else 5.0)
    keeper = Keeper(checkpoints, owner)
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
        if resumed is not None:
            log.info("%s: continuing from %s", title, resumed)
            table.restore(_content(resumed), module.monitor)
        try:
            with signals.ctrl_c_kept():
                trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        except Diverged as error:  # data with NaN or Inf were refused before
            raise Diverged(f"{title}: {error}; no sample held in memory has NaN or Inf") from error
    return Fitted(
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


def refuse_foreign(checkpoints: Path, owner: str) -> None:
    """See that checkpoints are of the training that is to be continued; those of an older kdexp do not say.

    Args:
        checkpoints: a folder, which need not exist.
        owner: identifies the training: the fingerprint of a run, the key of a stored teacher.

    Raises:
        ValueError: one of them is of another training.
    """
    for path in (checkpoints / "best.ckpt", checkpoints / "last.ckpt"):
        found = _owner(path)
        if found not in (None, owner):
            raise ValueError(
                f"{path} is a checkpoint of another training: its fingerprint must be {owner}, got {found}"
            )


def _owner(checkpoint: Path) -> str | None:
    try:
        owner: str | None = _content(checkpoint)["callbacks"]["Keeper"].get("owner")
    except (OSError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError):  # none, or damaged: see newest_good
        return None
    return owner


def _content(checkpoint: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(checkpoint, "cpu", weights_only=True, mmap=True)
    return content


class Keeper(Checkpoint):
    """best.ckpt, of the epoch with the best validation metric, and last.ckpt, of the last epoch.

    (Lightning's ModelCheckpoint writes last.ckpt only when it writes best.ckpt too, and forgets the best score when
    the run folder was moved.) Best before last: a kill between the two leaves a pair from which the continued run gets
    to the same files.

    Args:
        folder: of both.
        owner: see `refuse_foreign`.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.best, self.last = folder / "best.ckpt", folder / "last.ckpt"
        self.monitor, self.best_epoch, self.best_value, self._owner = "", -1, math.nan, owner
        self._best_score = -math.inf, -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; after the module's own epoch end, which refuses a diverged epoch."""
        assert isinstance(pl_module, Distiller)
        metrics = pl_module.epoch_metrics
        if pl_module.monitor not in metrics and not self.monitor:
            log.warning("%s is not defined on the val samples used: %s chooses the best epoch", pl_module.monitor,
                        pl_module.tie_breaker)  # fmt: skip
        # Where val has a single class no epoch has an AUC: what decides between equal ones then decides.
        self.monitor = pl_module.monitor if pl_module.monitor in metrics else pl_module.tie_breaker or ""
        score = monitor.score(metrics, self.monitor, pl_module.tie_breaker)
        if score > self._best_score:
            self.best_epoch, self.best_value, self._best_score = trainer.current_epoch, metrics[self.monitor], score
            trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoints."""
        return {
            "monitor": self.monitor,
            "best_epoch": self.best_epoch,
            "best_score": self.best_value,
            "scores": self._best_score,
            "owner": self._owner,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes from the checkpoint that is continued."""
        self.best_epoch, self.best_value = state_dict["best_epoch"], state_dict["best_score"]
        self.monitor = state_dict.get("monitor", "")
        # An older kdexp chose by an accuracy, and nothing decided between equal ones.
        self._best_score = tuple(state_dict.get("scores", (self.best_value, 0.0)))


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
    interrupted run when it is continued.) The checkpoints have the rows, too: a training that is continued needs no
    file besides them. A `Checkpoint` only in name: Lightning calls those after the module's own epoch end, when the
    epoch's metrics are there.
    """

    def __init__(self, path: Path, title: str, say_every_seconds: float | None) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self._path, self._title, self._say_every = path, title, say_every_seconds
        self._said = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoints."""
        return {"rows": self.rows}

    def restore(self, checkpoint: Mapping[str, Any], monitor: str) -> None:
        """Begin with the rows of the epochs that are not run again.

        Args:
            checkpoint: that is continued. One of an older kdexp has no rows: they are those of metrics.csv then.
            monitor: see `Distiller.monitor`.
        """
        states = checkpoint["callbacks"]
        if "EpochTable" in states:
            self.rows = states["EpochTable"]["rows"]
            return
        done, keeper = checkpoint["epoch"] + 1, states["Keeper"]
        known = {"epoch": keeper["best_epoch"], monitor: keeper["best_score"]}
        found = _read_rows(self._path, range(done))
        if found.get(known["epoch"], known).get(monitor) != known[monitor]:  # another training's
            found = {}
        if len(found) < done:
            missing = ", ".join(str(epoch) for epoch in range(done) if epoch not in found)
            log.warning(
                "%s: %s has no readable rows of epochs %s; their curves are lost", self._title, self._path, missing
            )
        found.setdefault(known["epoch"], known)
        self.rows = [found[epoch] for epoch in sorted(found)]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what was restored: there may be no epoch left to do it."""
        if self.rows and trainer.is_global_zero:
            self._write()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far a long epoch is."""
        if self._is_silent_for_long(trainer):
            batches = int(trainer.num_training_batches)
            self._say_inside(trainer, f"batch {batch_idx + 1}/{batches}", (batch_idx + 1) / batches)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far a long validation is."""
        if self._is_silent_for_long(trainer):
            self._say_inside(trainer, f"validation batch {batch_idx + 1}/{int(trainer.num_val_batches[0])}", 1.0)

    def _is_silent_for_long(self, trainer: pl.Trainer) -> bool:
        silence = time.perf_counter() - max(self._said, self._started)
        return silence >= EVERY_SECONDS and self._say_every is not None and trainer.is_global_zero

    def _say_inside(self, trainer: pl.Trainer, where: str, share: float) -> None:
        """An epoch lasts as long as those before it, the first one as long as its batches so far let expect."""
        self._said = now = time.perf_counter()
        total, spent = trainer.max_epochs or 0, now - self._started
        an_epoch = sum(self.seconds) / len(self.seconds) if self.seconds else spent / share
        left = max(an_epoch * (total - trainer.current_epoch) - spent, 0.0)
        log.info(
            "%s: epoch %d/%d, %s, about %s left", self._title, trainer.current_epoch + 1, total, where, duration(left)
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        self.seconds.append(time.perf_counter() - self._started)
        assert isinstance(pl_module, Distiller)
        progress = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self.rows.append(progress | pl_module.epoch_metrics)
        if trainer.is_global_zero:
            self._write()
            self._say(trainer)

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)

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
        log.info("%s: epoch %d/%d  %s  %s left", self._title, done, total, shown, duration(left))


def _read_rows(path: Path, epochs: Container[int]) -> dict[int, dict[str, float]]:
    """The rows of metrics.csv of these epochs by their number, but for those that are damaged."""
    rows: dict[int, dict[str, float]] = {}
    with suppress(OSError, ValueError, LookupError, csv.Error):  # what was read before a damaged place is good
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]  # a last line without an end is cut short
        for line in csv.DictReader(whole.splitlines(), restval="?"):
            row = {name: _number(value) for name, value in line.items() if value}
            if row["epoch"] in epochs:
                rows[int(row["epoch"])] = row
    return rows


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
