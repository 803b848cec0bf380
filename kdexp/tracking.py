"""Weights & Biases; the only module that imports wandb."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import Logger, WandbLogger
from wandb.sdk.lib.wbauth import read_netrc_auth

from kdexp.metrics import CurveData

log = logging.getLogger(__name__)

# A server that does not answer must cost seconds, not the job.
_PROBE_SECONDS = 2.0
_INIT_SECONDS = 30.0
_FINISH_SECONDS = 60.0


class Tracker:
    """One W&B run, or nothing at all when tracking is disabled.

    Args:
        mode: auto, online, offline or disabled; see conf/tracking/wandb.yaml.
        folder: the run folder; W&B's files go to ``wandb/`` in it.
        config: plain values, resolved; shown as the run's config.
        settings: project, entity, group, name, job_type, tags as `wandb.init` takes them.
        run_id: identifies the run, so that a resumed job continues it.
    """

    def __init__(
        self, mode: str, folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any], run_id: str
    ) -> None:
        self._run: wandb.Run | None = None
        self._mode = _decide(mode)
        if self._mode == "disabled":
            return
        self._run = wandb.init(
            mode=self._mode,
            dir=folder,
            id=run_id,
            resume="allow",
            reinit="finish_previous",
            config=dict(config),
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS
            ),
            **settings,
        )
        # Lightning defines these only for runs that it starts itself.
        self._run.define_metric("trainer/global_step")
        self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        for metric, best in {"acc": "max", "f1": "max", "auc": "max", "loss": "min", "nll": "min"}.items():
            self._run.define_metric(f"val/{metric}", summary=best, step_metric="trainer/global_step")

    @property
    def loggers(self) -> list[Logger]:
        """For Lightning's Trainer."""
        return [WandbLogger(experiment=self._run)] if self._run is not None else []

    @property
    def location(self) -> str | None:
        """Folder of the run's W&B files, or its address when it is online."""
        if self._run is None:
            return None
        return self._run.url if self._mode == "online" else str(Path(self._run.dir).parent)

    def summarize(self, metrics: Mapping[str, float], curves: CurveData, classes: Sequence[str]) -> None:
        """Add final metrics to the run's summary, and ROC and confusion matrix as charts."""
        if self._run is None:
            return
        self._run.summary.update(dict(metrics))
        charts: dict[str, Any] = {}
        if curves.confusion is not None:
            cells = [
                [classes[i], classes[j], int(count)]
                for i, row in enumerate(curves.confusion)
                for j, count in enumerate(row)
            ]
            charts["test/confusion_matrix"] = wandb.plot_table(
                "wandb/confusion_matrix/v1",
                wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=cells),
                {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
                {"title": "Confusion matrix (test)"},
            )
        points = [
            [classes[number], x, y] for number, (fpr, tpr) in curves.roc.items() for x, y in zip(fpr, tpr, strict=True)
        ]
        if points:
            charts["test/roc"] = wandb.plot_table(
                "wandb/area-under-curve/v0",
                wandb.Table(columns=["class", "fpr", "tpr"], data=points),
                {"x": "fpr", "y": "tpr", "class": "class"},
                {"title": "ROC (test)", "x-axis-title": "false positive rate", "y-axis-title": "true positive rate"},
            )
        self._run.log(charts)

    def finish(self, exit_code: int) -> None:
        """Close the run; W&B shows a run with another exit code than 0 as failed."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)


def _decide(mode: str) -> Literal["online", "offline", "disabled"]:
    """Online or offline is decided before the first init: after one that failed, W&B cannot even start offline.

    (https://github.com/wandb/wandb/issues/9865)
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "auto")
    if mode == "offline":
        return "offline"
    if mode == "disabled":
        return "disabled"
    settings = wandb.setup().settings
    key = os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=settings.base_url)
    if key and _answers(settings.base_url):
        return "online"
    if key or mode == "online":
        reason = f"{settings.base_url} does not answer" if key else "not logged in"
        log.warning("W&B: %s; the run is kept offline and can be sent later with `wandb sync`", reason)
    return "offline"


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False
