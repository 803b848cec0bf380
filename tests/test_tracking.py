"""What the trackers hold, read back by their own readers. W&B's is read in test_programs.py."""

import csv
import os

import pytest
import torch

from kdexp.config import compose
from kdexp.metrics import Curves
from kdexp.tracking import Tracker, _with_password
from kdexp.train import run

# MLflow's tables: https://github.com/mlflow/mlflow/blob/v3.17.2/mlflow/store/tracking/dbmodels/models.py#L4665
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def tracked(tmp_path, store):
    """A run tracked by a tool."""

    def of(tool, *overrides):
        settings = [
            "experiment=smoke",
            f"tracking={tool}",
            "tracking.project=project",
            "tracking.name=name",
            *overrides,
        ]
        return run(compose(settings, output_dir=tmp_path / "run", store_dir=store))

    return of


def begin(tool, folder, **settings):
    """A tracker without a run, and what a run would hand to it in the end."""
    given = {
        "project": "project",
        "entity": None,
        "group": "g",
        "job_type": "distill",
        "name": "name",
        "tags": ["digits"],
    }
    tracker = Tracker(
        given | {"tool": tool, "wandb": "offline", "uri": f"sqlite:///{folder}/mlflow.db"} | settings,
        folder,
        {"alpha": 0.1, "optimizer": {"lr": 0.5}},
        "0123abcd",
    )
    curves = Curves("multiclass", 2)
    curves.update(torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))
    return tracker, ({"test/acc": 2 / 3}, curves.compute(), ["no", "yes"])


def test_csv_has_steps_hyper_parameters_and_final_metrics(tracked, tmp_path):
    result = tracked("csv")
    (folder,) = (tmp_path / "run" / "csv").iterdir()
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train_step/loss"] for row in rows)
    (final,) = [row for row in rows if row["test/acc"]]
    assert float(final["test/acc"]) == pytest.approx(result["metrics"]["test"]["best"]["acc"])
    assert float(final["test/agreement"]) == pytest.approx(result["metrics"]["test"]["best"]["agreement"])
    assert "alpha: 0.1" in (folder / "hparams.yaml").read_text()
    assert result["tracking"]["location"] == str(folder.parent)


def test_tensorboard_has_curves_hyper_parameters_figures_and_final_metrics(tracked):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = tracked("tensorboard")
    found = reader.EventAccumulator(result["tracking"]["location"])
    found.Reload()
    assert [event.value for event in found.Scalars("test/acc")] == pytest.approx(
        [result["metrics"]["test"]["best"]["acc"]]
    )
    assert len(found.Scalars("val/acc")) == 2  # epochs
    assert {"test/roc", "test/confusion"} <= set(found.Tags()["images"])
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    begun = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(begun).session_start_info.hparams
    assert values["alpha"].number_value == 0.1
    assert values["student_name"].string_value == "cnn_small"


@pytest.fixture
def mlflow_runs():
    pytest.importorskip("sqlalchemy")
    tracking = pytest.importorskip("mlflow.tracking")

    def of(uri):
        client = tracking.MlflowClient(uri)
        return client, client.search_runs([client.get_experiment_by_name("project").experiment_id])

    return of


def test_mlflow_has_parameters_metrics_figures_and_the_state(tracked, mlflow_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # artifacts lie beside a local store
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    result = tracked("mlflow", f"tracking.uri={uri}", "tracking.group=g")
    client, (found,) = mlflow_runs(uri)
    assert (found.info.status, found.info.run_name, found.data.tags["group"]) == ("FINISHED", "name", "g")
    assert found.data.params["alpha"] == "0.1"
    assert found.data.params["optimizer/lr"] == str(result["config"]["optimizer"]["lr"])
    assert found.data.metrics["test/acc"] == pytest.approx(result["metrics"]["test"]["best"]["acc"])
    assert found.data.metrics["teacher/test/acc"] == pytest.approx(result["teacher"]["test"]["acc"])
    assert len(client.get_metric_history(found.info.run_id, "val/acc")) == 2
    assert {file.path for file in client.list_artifacts(found.info.run_id, "figures")} >= {"figures/roc.png"}


def test_mlflow_shows_a_failed_run_as_failed_and_a_resumed_one_as_the_same(mlflow_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figures").mkdir()
    tracker, _ = begin("mlflow", tmp_path)
    tracker.finish(1)
    (found,) = mlflow_runs(tracker.location)[1]
    assert found.info.status == "FAILED"
    again, final = begin("mlflow", tmp_path)
    again.summarize(*final)
    again.finish(0)
    (found,) = mlflow_runs(tracker.location)[1]
    assert (found.info.status, found.data.metrics["test/acc"]) == ("FINISHED", pytest.approx(2 / 3))


def test_mlflow_is_asked_with_the_environments_password_which_no_setting_has(monkeypatch):
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    for name in names:
        monkeypatch.setenv(name, "")  # so that they are put back
        monkeypatch.delenv(name)
    database = "postgresql://me:hunter2@host/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert _with_password("postgresql://me:***@host/db") == database  # its driver has no other way
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p%40ss@host:5000/x")
    assert _with_password("https://another:5000/x") == "https://another:5000/x"
    assert not set(names) & set(os.environ)
    assert _with_password("https://me:***@host:5000/x") == "https://host:5000/x"  # which may stand in a message
    assert [os.environ[name] for name in names] == ["me", "p@ss"]


@pytest.mark.parametrize("settings", [{"tool": "none"}, {"tool": "wandb", "wandb": "disabled"}], ids=str)
def test_nothing_is_written_without_a_tracker(tmp_path, settings):
    tracker, final = begin(settings.pop("tool"), tmp_path, **settings)
    assert (tracker.loggers, tracker.location) == ([], None)
    tracker.summarize(*final)
    tracker.finish(0)
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_is_not_installed_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    from kdexp import config

    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^tracking=mlflow needs .*: pip install 'kdexp\[mlflow\]'$"):
        config.check(compose(["experiment=smoke", "tracking=mlflow"], output_dir=tmp_path))
