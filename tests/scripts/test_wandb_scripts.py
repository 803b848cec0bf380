"""What scripts/wandb_* make of runs that W&B kept offline, without a server."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import offline_wandb
import pytest
import yaml

from kdexp.config.compose import compose
from kdexp.experiment.check import check
from kdexp.experiment.run import run
from kdexp.report.comparison import Comparison
from kdexp.report.runs import find

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, store):
    """A control and a distilled run beside it, tracked offline in one group."""
    folder = tmp_path_factory.mktemp("sweep")
    for alpha in (1.0, 0.5):
        settings = ["experiment=smoke", "tracking.wandb=offline", "tracking.group=my-sweep", f"alpha={alpha}"]
        run(compose(settings, output_dir=folder / f"alpha-{alpha}", store_dir=store))
    return folder


@pytest.mark.slow
def test_the_summary_holds_teacher_control_gain_and_fidelity(tracked):
    found = {}
    for folder in tracked.iterdir():
        (path,) = folder.glob("wandb/offline-run-*")
        found[folder.name] = offline_wandb.summary(path)
    distilled, control = found["alpha-0.5"], found["alpha-1.0"]
    assert (distilled["config"]["is_control"], control["config"]["is_control"]) == (False, True)
    summary = distilled["summary"]
    assert {"teacher/test/acc", "test/agreement", "test/kl_to_teacher", "test_last/acc"} <= summary.keys()
    assert summary["control/test/acc"] == pytest.approx(control["summary"]["test/acc"])
    assert summary["gain/acc"] == pytest.approx(summary["test/acc"] - control["summary"]["test/acc"])
    assert "gain/acc" not in control["summary"]


@pytest.mark.slow
# https://github.com/wandb/wandb-workspaces/blob/main/wandb_workspaces/reports/v2/internal.py
@pytest.mark.filterwarnings("ignore:Pydantic V1 style `@validator` validators are deprecated")
def test_the_workspace_has_the_groups_runs_and_every_panel(tracked):
    pytest.importorskip("wandb_workspaces")
    spec = importlib.util.spec_from_file_location("wandb_workspace", ROOT / "scripts" / "wandb_workspace.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    comparison = Comparison(find([tracked])[0])
    built = script.workspace(comparison)
    assert (built.project, built.name) == ("kdexp", "kdexp my-sweep")
    kinds = [type(panel).__name__ for section in built.sections for panel in section.panels]
    assert {"ParallelCoordinatesPlot", "ScatterPlot", "BarPlot", "RunComparer", "LinePlot", "CustomChart"} <= set(kinds)
    (control,) = comparison.controls
    assert built.runset_settings.baseline_run == control.runs[0].results["wandb_id"]
    sent = built._to_model().model_dump_json(by_alias=True)  # what save() would send
    for name in ("my-sweep", "test/roc_table", "test/confusion_matrix_table", "gain/acc", "test/acc"):
        assert name in sent


@pytest.mark.slow
def test_a_sweep_that_wandb_did_not_see_has_no_workspace(tmp_path):
    pytest.importorskip("wandb_workspaces")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "wandb_workspace.py", tmp_path, "--dry-run"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the sweep must have completed runs that were tracked with W&B" in done.stderr


def test_the_command_that_wandbs_agent_runs_composes(tmp_path):
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    program, *settings = sweep["command"]
    assert (program, settings[-1]) == ("kdexp-train", "${args_no_hyphens}")
    for end in ("min", "max"):
        point = [f"{name}={p[end] if end in p else p['values'][0]}" for name, p in sweep["parameters"].items()]
        config = compose([*settings[:-1], *point], output_dir=tmp_path)
        check(config)
        assert config.alpha == sweep["parameters"]["alpha"][end]
    assert sweep["metric"] == {"name": "val/acc", "goal": "maximize"}  # never test


def sync(*arguments, cwd):
    environment = os.environ | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    command = ["bash", ROOT / "scripts" / "wandb_sync.sh", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_offline_runs_are_found_and_would_be_sent(tracked):
    done = sync("--dry-run", str(tracked), cwd=tracked)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "Would sync 2 run(s)" in said
    for folder in tracked.iterdir():
        (path,) = folder.glob("wandb/offline-run-*")
        assert path.name in said


def test_where_there_is_nothing_to_send_it_is_said(tmp_path):
    done = sync(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: no offline W&B run below outputs or multirun\n"
