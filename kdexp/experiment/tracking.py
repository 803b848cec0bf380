"""W&B, or a logger of Lightning's: where metrics go besides metrics.csv. The only module that imports wandb."""

import logging
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import wandb
from matplotlib.image import imread
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from kdexp.config.require import Values
from kdexp.config.untrusted import without_password
from kdexp.experiment.wandb_server import decide_mode, problem_of_server, say_offline, wanted_mode
from kdexp.metrics.monitor import DIRECTIONS
from kdexp.metrics.roc_and_confusion import RocAndConfusion
from kdexp.report import text_examples
from kdexp.report.png_figures.run import IMAGES, MASKS
from kdexp.report.robustness import flat
from kdexp.results import Record

log = logging.getLogger(__name__)

_INIT_SECONDS = 15.0
_FINISH_SECONDS = 12.0  # W&B's own process takes up to 10 s more
_MLFLOW = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # unless the user says more
_ENDS = ("value", "low", "high")  # of a difference and its interval


def warm_up(settings: Values) -> None:
    """Start W&B's own process, where it will be needed, in the background: it takes a fifth of a second to answer.

    Args:
        settings: conf/tracking.
    """
    if settings["tool"] == "wandb" and wanted_mode(settings["wandb"]) != "disabled":
        threading.Thread(target=_set_up).start()


def _set_up() -> None:
    with suppress(Exception):  # who needs it is told
        wandb.setup()


class Tracker:
    """One run in W&B, TensorBoard, MLflow or Lightning's CSV files, or nowhere.

    It never fails a run: when the tool fails, that is said once, and no more is sent to it.

    Args:
        settings: conf/tracking, and ``name``, ``group``, ``job_type`` and ``tags`` of the run.
        folder: the run folder; all but MLflow write below it.
        shown: plain values, as the run's hyper-parameters.
        run_id: identifies the run, so that a resumed job continues it.
    """

    def __init__(self, settings: Values, folder: Path, shown: Values, run_id: str) -> None:
        self._folder, self._shown = folder, dict(shown)
        self._tool = settings["tool"]
        self._run: wandb.Run | None = None
        self._logger: Logger | None = None
        self.location: str | None = None
        """Where it can be looked at: a folder, MLflow's store, or the address of an online W&B run."""
        self._attempt(lambda: self._begin(settings, run_id))

    def _begin(self, settings: Values, run_id: str) -> None:
        folder = self._folder
        if self._tool == "wandb":
            mode = decide_mode(settings["wandb"])
            if mode != "disabled":
                self._run = _wandb_run(mode, settings, folder, self._shown, run_id)
                self._logger = WandbLogger(experiment=self._run)
                where = str(Path(self._run.dir).parent) if self._run.offline else self._run.url
                self.location = without_password(where or "")
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
            self._logger.log_hyperparams(self._shown)

    def _attempt(self, send: Callable[[], object]) -> None:
        """Send something, unless the tool has failed before."""
        try:
            send()
        except Exception as error:
            said = str(error).strip().splitlines()
            self._give_up(f"{type(error).__name__}{f': {said[0]}' if said else ''}")
            if isinstance(error, ConnectionError):  # W&B's own process is gone; at the exit it would be missed again
                with suppress(Exception):
                    wandb.teardown()

    def _give_up(self, reason: str) -> None:
        run = self._run
        later = f"; send it later with: wandb sync --no-skip-online {Path(run.dir).parent}" if run is not None else ""
        log.warning("warning: tracking with %s stopped: %s; the run goes on without it%s", self._tool, reason, later)
        self._run = self._logger = None

    @property
    def loggers(self) -> list[Logger]:
        """For Lightning's Trainer."""
        return [_Forwarding(self)] if self._logger is not None else []

    def forward(self, call: Callable[[Logger], object]) -> None:
        """Call the tool's logger of Lightning's, if there is one."""
        logger = self._logger
        if logger is not None:
            self._attempt(lambda: call(logger))

    def summarize(self, metrics: Mapping[str, float], curves: RocAndConfusion | None, classes: Sequence[str]) -> None:
        """Add the final metrics, and ROC and confusion matrix as the tool can show them.

        Args:
            metrics: name -> value.
            curves: of the test split; None of a task without.
            classes: names of the classes, by number.
        """
        self._attempt(lambda: self._summarize(metrics, curves, classes))

    def _summarize(self, metrics: Mapping[str, float], curves: RocAndConfusion | None, classes: Sequence[str]) -> None:
        if self._run is not None:
            self._run.summary.update(dict(metrics))
            if curves is not None:
                self._run.log(_charts(curves, classes))
            for name in (MASKS, IMAGES):
                if (picture := self._folder / "figures" / name).is_file():
                    self._run.log({f"test/{picture.stem}": wandb.Image(str(picture))})
            if texts := text_examples.read(self._folder, len(classes)):
                self._run.log({"test/texts": _table(texts, classes)})
        elif isinstance(self._logger, TensorBoardLogger):
            self._logger.log_hyperparams(self._shown, dict(metrics))  # together they make the HPARAMS table
            for figure in sorted((self._folder / "figures").glob("*.png")):
                self._logger.experiment.add_image(f"test/{figure.stem}", imread(figure), dataformats="HWC")
        elif self._logger is not None:
            self._logger.log_metrics(dict(metrics))
            if isinstance(self._logger, MLFlowLogger):
                self._logger.experiment.log_artifacts(self._logger.run_id, str(self._folder / "figures"), "figures")

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add metrics to a run that was finished before.

        Args:
            metrics: name -> value.
        """
        self._attempt(lambda: self._add(metrics))

    def _add(self, metrics: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.summary.update(dict(metrics))
        elif self._logger is not None:
            self._logger.log_metrics(dict(metrics))

    def robustness(self, report: Record) -> None:
        """Add a robustness report: the student's metrics, and in W&B the tables of all metrics and conditions.

        Args:
            report: the content of robustness.json.
        """
        self._attempt(lambda: self._robustness(report))

    def _robustness(self, report: Record) -> None:
        roles = list(report["models"])
        metrics = list(flat(report["metrics"]))
        of_student = ((f"robustness/{axis}/{name}", entry.get(roles[-1])) for axis, name, entry in metrics)
        own = {name: float(value) for name, value in of_student if value is not None}
        if self._run is not None:
            self._run.summary.update(own)
            names = list(dict.fromkeys(name for row in report["conditions"] for name in row))
            conditions = [[row.get(name) for name in names] for row in report["conditions"]]
            rows = [
                [axis, name, *(entry.get(role) for role in roles), *(entry.get("difference", {}).get(k) for k in _ENDS)]
                for axis, name, entry in metrics
            ]
            columns = ["axis", "metric", *roles, "student - control", "low", "high"]
            tables = {"conditions": wandb.Table(names, conditions), "metrics": wandb.Table(columns, rows)}
            self._run.log({f"robustness/{name}": table for name, table in tables.items()})
        elif self._logger is not None:
            self._logger.log_metrics(own)

    def finish(self, exit_code: int) -> None:
        """Close the run; with another exit code than 0 W&B and MLflow show it as failed."""
        self._attempt(lambda: self._finish(exit_code))

    def _finish(self, exit_code: int) -> None:
        run = self._run
        if run is not None:
            run.finish(exit_code=exit_code)
            # W&B does not say when a server took nothing of what it was sent.
            if not run.offline and (problem := problem_of_server()):
                self._give_up(problem)
        elif self._logger is not None:
            self._logger.finalize("failed" if exit_code else "success")


class _Forwarding(Logger):
    """A tracker as one of Lightning's loggers."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    @property
    def name(self) -> str | None:
        """Not needed: everything has its folder."""
        return None

    @property
    def version(self) -> str | None:
        """Likewise."""
        return None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Forward."""
        self._tracker.forward(lambda logger: logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """Forward."""
        self._tracker.forward(lambda logger: logger.log_hyperparams(params, *args, **kwargs))

    def save(self) -> None:
        """Forward."""
        self._tracker.forward(lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """Forward."""
        self._tracker.forward(lambda logger: logger.finalize(status))


def _mlflow_run(settings: Values, run_id: str) -> MLFlowLogger:
    """The MLflow run of this id: found again by its tag, or a new one."""
    for name, value in _MLFLOW.items():
        os.environ.setdefault(name, value)
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
    settings: Values,
    folder: Path,
    shown: Values,
    run_id: str,
) -> wandb.Run:
    own = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=_INIT_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        finish_timeout_raises=True,
        x_save_requirements=False,  # to list every package takes 0.1 s; the versions that matter are in the config
    )
    # What it reports of itself goes to the same server, and its failures to the console.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def start(mode: Literal["online", "offline"]) -> wandb.Run:
        return wandb.init(
            mode=mode,
            dir=folder,
            id=run_id,
            resume="allow",
            reinit="create_new",  # fused jobs have several at once
            config=dict(shown),
            settings=own,
            **{key: settings[key] for key in ("project", "entity", "group", "job_type", "name", "tags")},
        )

    try:
        run = start(mode)
    except Exception as error:
        if mode == "offline":
            raise
        say_offline(f"it could not be started online ({' '.join(str(error).split())})")
        run = start("offline")
    # Lightning defines these only for runs that it starts itself.
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    for metric, best in DIRECTIONS.items():
        run.define_metric(metric, summary=best, step_metric="trainer/global_step")
    return run


def _table(texts: Sequence[text_examples.TextExample], classes: Sequence[str]) -> wandb.Table:
    """Texts, their classes and those that the networks predict."""
    rows = [[each.text, classes[each.truth], *(classes[c] for c in each.predictions.values())] for each in texts]
    return wandb.Table(["text", "truth", *texts[0].predictions], rows)


def _charts(curves: RocAndConfusion, classes: Sequence[str]) -> dict[str, object]:
    charts: dict[str, object] = {}
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
