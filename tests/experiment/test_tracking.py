"""What the trackers hold, read back by their own readers. W&B's is read in test_programs.py."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import fake_wandb
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger

from kdexp.config.compose import compose
from kdexp.experiment import tracking, wandb_server
from kdexp.experiment.run import run
from kdexp.experiment.tracking import Tracker, _with_password
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric

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
    curves = RocAndConfusionMetric("multiclass", 2)
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


@pytest.mark.pixels
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


def test_wandb_gets_the_picture_of_masks(tmp_path):
    picture = tmp_path / "figures" / "masks.png"
    picture.parent.mkdir()
    Image.new("RGB", (3, 2)).save(picture)
    tracker, final = begin("wandb", tmp_path)
    tracker.summarize(*final)
    tracker.finish(0)
    (sent,) = (tmp_path / "wandb").glob("offline-run-*/files/media/images/test/masks_*.png")
    assert sent.read_bytes() == picture.read_bytes()


@pytest.mark.parametrize("settings", [{"tool": "none"}, {"tool": "wandb", "wandb": "disabled"}], ids=str)
def test_nothing_is_written_without_a_tracker(tmp_path, settings):
    tracker, final = begin(settings.pop("tool"), tmp_path, **settings)
    assert (tracker.loggers, tracker.location) == ([], None)
    tracker.summarize(*final)
    tracker.finish(0)
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_is_not_installed_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    from kdexp.experiment import check, settings

    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^tracking=mlflow needs .*: pip install 'kdexp\[mlflow\]'$"):
        check.check(compose(["experiment=smoke", "tracking=mlflow"], output_dir=tmp_path))


OUTAGE = """
import json, os, sys, time, logging
from pathlib import Path
import fake_wandb, kdexp, wandb
from kdexp.experiment import tracking, wandb_server

wandb_server._PROBE_SECONDS, tracking._INIT_SECONDS, tracking._FINISH_SECONDS = 1.0, 2.0, 2.0  # the same, sooner
logging.basicConfig(stream=sys.stdout, format="%(message)s")
SETTINGS = {"project": "kdexp", "entity": None, "group": "g", "job_type": "distill", "name": "name", "tags": [],
            "tool": "wandb", "wandb": "auto", "uri": None}

def outage(before, after, moment):
    folder = Path(f"{before}-{after}-{moment}").absolute()
    folder.mkdir()
    with fake_wandb.serving("well" if before == "refuses" else before) as server:
        os.environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "x" * 40}
        if before == "refuses":
            server.server_close()
        started = time.monotonic()
        # An id for each: W&B may still have the one whose server did not answer.
        tracker = tracking.Tracker(SETTINGS, folder, {"alpha": 0.1}, os.urandom(4).hex())
        seconds = {"start": time.monotonic() - started}
        for place in range(2):
            if moment == place:
                if after == "killed":
                    os.system(f"pkill -9 -P {os.getpid()} wandb-core")
                    time.sleep(0.5)
                else:
                    server.mode = after
            for logger in tracker.loggers:
                logger.log_metrics({"x": float(place)}, place)
            time.sleep(0.5)
        if moment == "end":
            server.mode = after
        started = time.monotonic()
        tracker.finish(0)
        wandb.teardown()
        print("ENDED", json.dumps(seconds | {"end": time.monotonic() - started, "location": tracker.location}))

for case in sys.argv[1:]:
    before, after, moment = case.split()
    print("CASE", case, flush=True)
    outage(before, after, int(moment) if moment.isdigit() else moment)
"""


def wandb_without_a_server(folder: Path, *cases: str) -> dict[str, tuple[str, dict]]:
    """For each case what was said, and the seconds that the tracker took to begin and to end."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "WANDB_SILENT": "true"}
    for name in ("WANDB_MODE", "WANDB_SERVICE"):  # the second: W&B's process of a test that ran before
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", OUTAGE, *cases], cwd=folder, env=env, timeout=300, check=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    found = {}
    for part in done.stdout.split("CASE ")[1:]:
        case, _, rest = part.partition("\n")
        said, _, ended = rest.partition("ENDED ")
        found[case] = said, json.loads(ended)
    return found


@pytest.mark.slow
def test_a_server_that_is_down_at_the_start_is_said_once_and_the_run_is_kept_offline(tmp_path):
    reasons = {"500": "HTTP 500", "busy": "HTTP 429", "garbage": "not answer as W&B", "silent": "not answer",
               "refuses": "not answer"}  # fmt: skip
    found = wandb_without_a_server(tmp_path, *(f"{mode} - -" for mode in reasons))
    for mode, reason in reasons.items():
        said, ended = found[f"{mode} - -"]
        assert reason in said
        assert said.count("\n") == 1
        assert "offline-run-" in ended["location"]
        assert ended["start"] + ended["end"] < 10


@pytest.mark.slow
def test_what_a_server_did_not_take_is_said_once_and_can_be_sent_later(tmp_path):
    cases = ("well silent 1", "well 500 end", "well garbage end", "well killed 1", "well - -")
    found = wandb_without_a_server(tmp_path, *cases)
    assert found["well - -"][0] == ""
    for case in cases[:-1]:
        said, ended = found[case]
        assert "tracking with wandb stopped: " in said
        assert "wandb sync --no-skip-online " in said
        assert said.count("\n") == 1
        assert ended["start"] + ended["end"] < 15
        (run,) = (tmp_path / case.replace(" ", "-")).glob("wandb/run-*")
        with fake_wandb.serving() as server:
            env = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "x" * 40}
            wandb = Path(sys.executable).parent / "wandb"
            sync = [wandb, "sync", "--yes", "--no-skip-online", run]
            subprocess.run(sync, env=env, cwd=tmp_path, check=True, capture_output=True, timeout=60)
            # What W&B's process had not written when it was killed is in metrics.csv alone.
            assert "wandb-history.jsonl" in server.sent or "killed" in case, case


def test_the_seconds_that_a_dead_server_costs_are_less_than_30():
    assert wandb_server._PROBE_SECONDS + tracking._INIT_SECONDS < 30
    assert tracking._FINISH_SECONDS + wandb_server._PROBE_SECONDS < 20  # W&B's own process takes up to 10 s more


class Failing(CSVLogger):
    """Fails at the second call, as a tracker on a full disk or without its server does."""

    calls = 0

    def log_metrics(self, *args, **more):
        self.calls += 1
        if self.calls > 1:
            raise OSError("no space left\non the device")


def test_a_tracker_that_fails_in_the_middle_is_closed_and_the_run_goes_on(tmp_path, store, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "CSVLogger", Failing)
    with caplog.at_level("WARNING", "kdexp.experiment.tracking"):
        result = run(compose(["experiment=smoke", "tracking=csv"], output_dir=tmp_path / "run", store_dir=store))
    assert result["status"] == "completed"
    said = [record.getMessage() for record in caplog.records if record.name == "kdexp.experiment.tracking"]
    assert said == ["warning: tracking with csv stopped: OSError: no space left; the run goes on without it"]


def test_a_tracker_that_cannot_begin_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "TensorBoardLogger", lambda *a, **k: 1 / 0)
    tracker, final = begin("tensorboard", tmp_path)
    tracker.summarize(*final)
    tracker.finish(0)
    assert (tracker.loggers, tracker.location) == ([], None)
    assert "tracking with tensorboard stopped: ZeroDivisionError: division by zero" in caplog.text
