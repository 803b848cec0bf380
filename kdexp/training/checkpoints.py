"""Checkpoints: what a resume keeps."""

import logging
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from kdexp.atomic import atomic_path
from kdexp.metrics import monitor
from kdexp.training.distiller import Distiller

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent.

    Lightning stages a checkpoint in the system's temporary folder and moves it over, which is a copy when that folder
    is another file system: a kill or a full disk leaves half a file under the final name
    (https://github.com/Lightning-AI/pytorch-lightning/issues/21253). Here it is staged beside its place, flushed and
    renamed.
    """

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
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
        owner: str | None = checkpoint_content(checkpoint)["callbacks"]["Keeper"].get("owner")
    except (OSError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError):  # none, or damaged: see newest_good
        return None
    return owner


def checkpoint_content(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds, read without running code from it."""
    content: dict[str, Any] = torch.load(checkpoint, "cpu", weights_only=True, mmap=True)
    return content


class BestAndLastCheckpoint(Checkpoint):
    """best.ckpt, of the epoch with the best validation metric, and last.ckpt, of the last epoch.

    (Lightning's ModelCheckpoint writes last.ckpt only when it writes best.ckpt too, and forgets the best score when
    the run folder was moved.) Best before last: a kill between the two leaves a pair from which the continued run gets
    to the same files.

    Args:
        folder: of both.
        owner: see `refuse_foreign`.
    """

    @property
    def state_key(self) -> str:
        """Where checkpoints have its state: under the name that the class had when the first ones were written."""
        return "Keeper"

    def __init__(self, folder: Path, owner: str) -> None:
        self.best, self.last = folder / "best.ckpt", folder / "last.ckpt"
        self.monitor, self.best_epoch, self.best_value, self._owner = "", -1, math.nan, owner
        self._best_score = -math.inf, -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; after the module's own epoch end, which refuses a diverged epoch."""
        assert isinstance(pl_module, Distiller)
        metrics = pl_module.epoch_metrics
        if pl_module.monitor not in metrics and not self.monitor:
            log.warning(
                "%s is not defined on the val samples used: %s chooses the best epoch",
                pl_module.monitor,
                pl_module.tie_breaker,
            )
        # Where val has a single class no epoch has an AUC: what decides between equal ones then decides.
        self.monitor = pl_module.monitor if pl_module.monitor in metrics else pl_module.tie_breaker or ""
        score = monitor.score(metrics, self.monitor, pl_module.tie_breaker)
        if score > self._best_score:
            self.best_epoch, self.best_value, self._best_score = trainer.current_epoch, metrics[self.monitor], score
            trainer.save_checkpoint(self.best)
        trainer.save_checkpoint(self.last)

    def state_dict(self) -> dict[str, object]:
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
