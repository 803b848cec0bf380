"""A sweep of runs that are compared by another metric than accuracy."""

import json
from types import SimpleNamespace

import pytest

from kdexp import results
from kdexp.config.compose import compose, plain
from kdexp.sweeps.optuna_study import METRICS, metric
from kdexp.sweeps.progress import Progress
from kdexp.sweeps.sweep import Job, Sweep

FACTS = {"config": plain(compose(output_dir="")), "overrides": [], "seed": 0, "is_control": True, "wandb_id": "w",
         "control_fingerprint": "c", "schema_version": 2, "key": "k"}  # fmt: skip


def job(number):
    return Job((f"seed={number}",), f"seed-{number}", "k", 4)


def done(folder, measure, value):
    best = {"acc": 0.99, measure: value}
    metrics = {split: {"best": best, "last": best} for split in ("val", "test")}
    results.write(folder, {**FACTS, "status": "completed", "measure": measure, "metrics": metrics})


def at_work(folder, measure):
    results.write(folder, {**FACTS, "status": "failed", "measure": measure, "epochs": {"monitor": f"val/{measure}"}})
    (folder / "metrics.csv").write_text(f"epoch,val/acc,val/{measure}\n0,0.99,0.5\n1,0.98,0.75\n2,0.97,0.25\n")


@pytest.mark.parametrize(("measure", "head"), [("dice", "Dice"), ("miou", "mean IoU")])
def test_the_index_and_the_lines_name_it(tmp_path, capsys, monkeypatch, measure, head):
    done(tmp_path / "seed-0", measure, 0.625)
    at_work(tmp_path / "seed-1", measure)
    sweep = Sweep(tmp_path, [job(number) for number in range(3)], "kdexp-train -m seed=0,1,2")
    first, second, third = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert (first[f"val_{measure}"], second[f"val_{measure}"]) == (0.625, 0.75)
    assert "val_acc" not in first
    assert "measure" not in first
    assert third["val_acc"] is None  # what it will be compared by is not known yet
    with Progress(tmp_path, "") as progress:
        progress._opening = ""
        progress.show(sweep.states())
    lines = capsys.readouterr().out
    assert f"val {head} 62.50 %: seed=0" in lines
    assert f"best val {head} 75.00 % (seed=1)" in lines
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with Progress(tmp_path, "") as progress:
        progress.show(sweep.states())
    shown = capsys.readouterr().out
    assert f"val {head}" in shown
    assert "75.00 %" in shown
    assert "acc" not in lines + shown


def test_jobs_of_several_tasks_have_no_best_one(tmp_path, capsys):
    done(tmp_path / "seed-0", "dice", 0.625)
    done(tmp_path / "seed-1", "acc", 0.9)
    states = Sweep(tmp_path, [job(0), job(1)], "kdexp-train -m seed=0,1").states()
    with Progress(tmp_path, "") as progress:
        progress.show(states)
    lines = capsys.readouterr().out
    assert "val Dice 62.50 %: seed=0" in lines
    assert "val acc 90.00 %: seed=1" in lines
    assert "best" not in lines


MASKS = ["dataset=shapes", "student=unet", "teacher=unet"]


@pytest.mark.parametrize(
    ("setting", "given", "found"),
    [
        ("auto", [], "val/acc"),
        ("auto", MASKS, "val/miou"),
        ("auto", [*MASKS, "dataset.kind=binary", "dataset.num_classes=2"], "val/dice"),
        ("auto", ["dataset=mnist", "task=generation"], "val/neg_elbo"),
        ("val/nll", MASKS, "val/nll"),
    ],
    ids=str,
)
def test_a_search_goes_by_it_unless_it_is_told_otherwise(setting, given, found):
    assert metric(setting, plain(compose(given, output_dir=""))) == found
    assert found in METRICS


def test_a_search_of_before_goes_on_under_its_name():
    from hydra_plugins.kdexp.search import Search  # Hydra loads its plugins anew when it first looks for them

    given = {"pruner": "median", "seed": 0, "_space": dict}
    searches = [SimpleNamespace(metric=word, **given) for word in ("auto", "val/acc", "val/nll")]
    auto, named, other = map(Search._rules, searches)
    assert auto == named != other
