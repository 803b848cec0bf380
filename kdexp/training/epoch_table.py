"""The table of epochs, metrics.csv."""

import csv
import logging
import time
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from kdexp.atomic import write_rows
from kdexp.progress_log import EVERY_SECONDS, duration
from kdexp.training.distiller import Distiller

log = logging.getLogger(__name__)


class MetricsCSVCallback(Checkpoint):
    """metrics.csv, one row an epoch, and a line on the console now and then.

    The file is rewritten whole, so that it is never half a table. (Lightning's CSVLogger deletes the rows of an
    interrupted run when it is continued.) The checkpoints have the rows, too: a training that is continued needs no
    file besides them. A `Checkpoint` only in name: Lightning calls those after the module's own epoch end, when the
    epoch's metrics are there.
    """

    @property
    def state_key(self) -> str:
        """Where checkpoints have its state: under the name that the class had when the first ones were written."""
        return "EpochTable"

    def __init__(self, path: Path, title: str, say_every_seconds: float | None) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self._path, self._title, self._say_every = path, title, say_every_seconds
        self._said = 0.0

    def state_dict(self) -> dict[str, object]:
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
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Say how far a long epoch is."""
        if self._is_silent_for_long(trainer):
            batches = int(trainer.num_training_batches)
            self._say_inside(trainer, f"batch {batch_idx + 1}/{batches}", (batch_idx + 1) / batches)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
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
            self._say(trainer, pl_module.task.measure)

    def _write(self) -> None:
        write_rows(self._path, self.rows)

    def _say(self, trainer: pl.Trainer, measure: str) -> None:
        if self._say_every is None:
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        if time.perf_counter() - self._said < self._say_every and done < total:
            return
        self._said = time.perf_counter()
        row, names = self.rows[-1], ("train/loss", "val/loss", f"val/{measure}")
        shown = " ".join(f"{name} {row[name]:.4f}" for name in names if name in row)
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
