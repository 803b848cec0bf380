"""W&B, or a logger of Lightning's: where metrics go besides metrics.csv. The only module that imports wandb."""

import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import wandb
from matplotlib.image import imread
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from wandb.sdk.lib.wbauth import read_netrc_auth

from kdexp.foreign import without_password
from kdexp.metrics import CurveData
from kdexp.monitor import DIRECTIONS
from kdexp.report.robustness import flat

log = logging.getLogger(__name__)

# A server that does not answer must cost seconds, not the job.
_PROBE_SECONDS = 2.0
_INIT_SECONDS = 30.0
_FINISH_SECONDS = 60.0

_ENDS = ("value", "low", "high")  # of a difference and its interval


def warm_up(settings: Mapping[str, Any]) -> None:
    """Start W&B's own process, where it will be needed, in the background: it takes a fifth of a second to answer.

    Args:
        settings: conf/tracking.
    """
    if settings["tool"] == "wandb" and _wanted(settings["wandb"]) != "disabled":
        threading.Thread(target=wandb.setup).start()


class Tracker:
    """One run in W&B, TensorBoard, MLflow or Lightning's CSV files, or nowhere.

    Args:
        settings: conf/tracking, and ``name``, ``group``, ``job_type`` and ``tags`` of the run.
        folder: the run folder; all but MLflow write below it.
        config: plain values, resolved; shown as the run's hyper-parameters.
        run_id: identifies the run, so that a resumed job continues it.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path, config: Mapping[str, Any], run_id: str) -> None:
        self._folder, self._config = folder, dict(config)
        self._tool = settings["tool"]
        self._run: wandb.Run | None = None
        self._logger: Logger | None = None
        self.location: str | None = None
        """Where it can be looked at: a folder, MLflow's store, or the address of an online W&B run."""
        if self._tool == "wandb":
            mode = _decide(settings["wandb"])
            if mode != "disabled":
                self._run = _wandb_run(mode, settings, folder, config, run_id)
                self._logger = WandbLogger(experiment=self._run)
                address = without_password(self._run.url or "")
                self.location = address if mode == "online" else str(Path(self._run.dir).parent)
        elif self._tool == "tensorboard":
            self._logger = TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)
            self.location = str(folder / "tensorboard")
        elif self._tool == "mlflow":
            self._logger = _mlflow_run(settings, run_id)
            self.location = settings["uri"]
        elif self._tool == "csv":
            self._logger = CSVLogger(folder, name="csv")
            self.location = str(folder / "csv")
        if self._logger is not None and self._run is None:
            self._logger.log_hyperparams(self._config)

    @property
    def loggers(self) -> list[Logger]:
        """For Lightning's Trainer."""
        return [self._logger] if self._logger is not None else []

    def summarize(self, metrics: Mapping[str, float], curves: CurveData, classes: Sequence[str]) -> None:
        """Add the final metrics, and ROC and confusion matrix as the tool can show them.

        Args:
            metrics: name -> value.
            curves: of the test split.
            classes: names of the classes, by number.
        """
        if self._run is not None:
            self._run.summary.update(dict(metrics))
            self._run.log(_charts(curves, classes))
        elif isinstance(self._logger, TensorBoardLogger):
            self._logger.log_hyperparams(self._config, dict(metrics))  # together they make the HPARAMS table
            for figure in sorted((self._folder / "figures").glob("*.png")):
                self._logger.experiment.add_image(f"test/{figure.stem}", imread(figure), dataformats="HWC")
        elif self._logger is not None:
            self._logger.log_metrics(dict(metrics))
            if isinstance(self._logger, MLFlowLogger):
                self._logger.experiment.log_artifacts(self._logger.run_id, str(self._folder / "figures"), "figures")

    def robustness(self, report: Mapping[str, Any]) -> None:
        """Add a robustness report: the student's measures, and in W&B the tables of all measures and cells.

        Args:
            report: the content of robustness.json.
        """
        roles = list(report["models"])
        measures = list(flat(report["measures"]))
        of_student = ((f"robustness/{axis}/{name}", entry.get(roles[-1])) for axis, name, entry in measures)
        own = {name: float(value) for name, value in of_student if value is not None}
        if self._run is not None:
            self._run.summary.update(own)
            names = list(dict.fromkeys(name for row in report["cells"] for name in row))
            cells = [[row.get(name) for name in names] for row in report["cells"]]
            rows = [
                [axis, name, *(entry.get(role) for role in roles), *(entry.get("difference", {}).get(k) for k in _ENDS)]
                for axis, name, entry in measures
            ]
            columns = ["axis", "measure", *roles, "student - control", "low", "high"]
            tables = {"cells": wandb.Table(names, cells), "measures": wandb.Table(columns, rows)}
            self._run.log({f"robustness/{name}": table for name, table in tables.items()})
        elif self._logger is not None:
            self._logger.log_metrics(own)

    def finish(self, exit_code: int) -> None:
        """Close the run; with another exit code than 0 W&B and MLflow show it as failed."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)
        elif self._logger is not None:
            self._logger.finalize("failed" if exit_code else "success")


def _mlflow_run(settings: Mapping[str, Any], run_id: str) -> MLFlowLogger:
    """The MLflow run of this id: found again by its tag, or a new one."""
    from mlflow.tracking import MlflowClient

    server = _with_password(settings["uri"])
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(settings["project"])
    earlier = client.search_runs([experiment.experiment_id], f"tags.kdexp_id = '{run_id}'") if experiment else []
    tags = {"kdexp_id": run_id, "group": settings["group"] or "", "job_type": settings["job_type"]}
    return MLFlowLogger(
        experiment_name=settings["project"],
        run_name=settings["name"],
        tracking_uri=server,
        tags=tags | {"tags": ", ".join(settings["tags"])},
        run_id=earlier[0].info.run_id if earlier else None,
    )


def _with_password(uri: str) -> str:
    """MLflow's store, by its address in the configuration, from which the environment's password was left out.

    A server's password goes the way that keeps it out of MLflow's own messages, too: by variables of its own.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if without_password(given) != uri:
        return uri
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or parts.password is None:
        return given
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username or ""))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _wandb_run(
    mode: Literal["online", "offline"],
    settings: Mapping[str, Any],
    folder: Path,
    config: Mapping[str, Any],
    run_id: str,
) -> wandb.Run:
    own = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=_INIT_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        x_save_requirements=False,  # to list every package takes 0.1 s; the versions that matter are in the config
    )
    run = wandb.init(
        mode=mode,
        dir=folder,
        id=run_id,
        resume="allow",
        reinit="create_new",  # fused jobs have several at once
        config=dict(config),
        settings=own,
        **{key: settings[key] for key in ("project", "entity", "group", "job_type", "name", "tags")},
    )
    # Lightning defines these only for runs that it starts itself.
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    for metric, best in DIRECTIONS.items():
        run.define_metric(metric, summary=best, step_metric="trainer/global_step")
    return run


def _charts(curves: CurveData, classes: Sequence[str]) -> dict[str, Any]:
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
            # Types, so that W&B need not find them out row by row.
            wandb.Table(columns=["class", "fpr", "tpr"], data=points, dtype=[str, float, float], optional=False),
            {"x": "fpr", "y": "tpr", "class": "class"},
            {"title": "ROC (test)", "x-axis-title": "false positive rate", "y-axis-title": "true positive rate"},
        )
    return charts


def _decide(mode: str) -> Literal["online", "offline", "disabled"]:
    """Online or offline is decided before the first init: after one that failed, W&B cannot even start offline.

    (https://github.com/wandb/wandb/issues/9865)
    """
    mode = _wanted(mode)
    if mode == "offline":
        return "offline"
    if mode == "disabled":
        return "disabled"
    settings = wandb.setup().settings
    key = os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=settings.base_url)
    if key and _answers(settings.base_url):
        return "online"
    if key or mode == "online":
        reason = f"{without_password(settings.base_url)} does not answer" if key else "not logged in"
        log.warning("W&B: %s; the run is kept offline and can be sent later with `wandb sync`", reason)
    return "offline"


def _wanted(mode: str) -> str:
    return os.environ.get("WANDB_MODE", "auto") if mode == "auto" else mode


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False
