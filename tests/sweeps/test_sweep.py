"""A sweep's names, its index, and what it tells of its jobs."""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hydra import compose as compose_hydra
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kdexp import recording, results, run_folder
from kdexp.config.compose import HYDRA_VERSION_BASE, compose, plain
from kdexp.config.identity import Identity, code_version
from kdexp.config.untrusted import check_folder
from kdexp.experiment.check import check
from kdexp.experiment.run import run as run_experiment
from kdexp.report.runs import job_overrides
from kdexp.sweeps import gpus, launch, subprocess_runner
from kdexp.sweeps.names import name_job, name_sweep
from kdexp.sweeps.progress import Progress, command_line, seconds_left, settings, show_left
from kdexp.sweeps.sweep import Job, State, Sweep, link_wandb, placed, without_gain

CONF = Path(__file__).parents[2] / "conf"
FACTS = {
    "config": plain(compose(output_dir="")),
    "overrides": [],
    "seed": 0,
    "is_control": False,
    "control_fingerprint": "c",
    "wandb_id": "w",
}


def job(number: int = 0, key: str = "k", epochs: int = 4) -> Job:
    return Job(("dataset=digits", f"seed={number}"), f"seed-{number}", key, epochs)


def state(number: int, status: str, **known) -> State:
    return State(number, job(number), status, **known)


def run(folder: Path, status: str = "completed", key: str = "k", **more) -> None:
    metrics = {split: {"best": {"acc": 0.9}, "last": {"acc": 0.8}} for split in ("val", "test")}
    record = {"schema_version": 2, **FACTS, "status": status, "key": key, "metrics": metrics, **more}
    results.write(folder, record)


def named(cell: dict[str, str], *overrides: str) -> str:
    values = plain(compose(["experiment=smoke", *overrides, *(f"{k}={v}" for k, v in cell.items())], output_dir="x"))
    return name_job(values, cell, is_control=Identity(values).is_control, fingerprint=Identity(values).fingerprint)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ({"alpha": "0.1", "temperature": "4.0", "seed": "0"}, "alpha-0.1_temperature-4_seed-0"),
        ({"alpha": "1e-1", "loss": "dkd"}, "alpha-0.1_loss-dkd"),
        ({"student.hidden": "[16,8]", "student": "mlp"}, "student.hidden-16-8-_student-mlp"),
        ({"tracking": "none", "seed": "3"}, "seed-3"),
        ({"distillation": "article"}, "distillation-article"),
    ],
)  # fmt: skip
def test_a_jobs_folder_is_named_after_its_values_and_safe_to_type(cell, name):
    found = named(cell)
    assert found.rsplit("-", 1)[0] == name
    assert len(found.rsplit("-", 1)[1]) == 8


def test_a_controls_folder_is_the_same_at_every_temperature_with_any_loss():
    cells = [{"alpha": "1", "temperature": t, "loss": loss, "seed": "0"} for t in ("1", "4") for loss in ("kd", "dkd")]
    assert len({named(cell) for cell in cells}) == 1
    assert named(cells[0]).startswith("alpha-1_seed-0-")
    assert named(cells[0] | {"seed": "1"}) != named(cells[0])
    distilled = [cell | {"alpha": "0.5"} for cell in cells]
    assert len({named(cell) for cell in distilled}) == 4


PRESETS = {
    path.stem: yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    for path in (CONF / "sweep").glob("*.yaml")
}


def values(axis: str) -> list[str]:
    interval = re.search(r"interval\((.*)\)", str(axis))
    return re.findall(r"\[[^]]*\]|[^,]+", interval[1].strip(")") if interval else str(axis))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_value_of_every_preset_passes_the_checks(tmp_path, preset):
    for name, axis in PRESETS[preset].items():
        for value in values(axis) if name != "seed" else ():
            needed = ["budget.bytes=2e6"] if preset == "budget" else []
            check(compose([f"+sweep={preset}", f"{name}={value}", *needed], output_dir=tmp_path))


@pytest.mark.parametrize(
    ("preset", "axes", "jobs"),
    [("alpha_temperature", ("alpha", "temperature"), 3 * 4 + 1), ("methods", ("distillation", "loss"), 8 + 1),
     ("students", ("student", "distillation"), 3 + 3)],
)  # fmt: skip
def test_a_preset_has_one_control_for_what_has_the_same(preset, axes, jobs):
    cells = itertools.product(*(values(PRESETS[preset][axis]) for axis in axes))
    assert len({named(dict(zip(axes, cell, strict=True))) for cell in cells}) == jobs


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("data_fractions", ["dataset.train_fraction=0.2"]),
        ("label_noise", ["dataset.label_noise=0.4", "dataset.label_noise_kind=pairflip"]),
        ("class_prior", ["dataset.imbalance_ratio=10", "dataset.class_sampling=balanced"]),
        ("semi_supervised", ["dataset.unlabeled_fraction=0.8"]),
        ("corrupted", ["robustness.samples=32", "robustness.corruptions.severities=[1,5]"]),
        ("cross_domain", ["dataset=synthetic", "dataset@scheme.source=synthetic", "alpha=0.5"]),
    ],
)
def test_a_preset_of_training_data_trains(tmp_path, store, preset, overrides):
    settings = ["experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1"]
    config = compose([f"+sweep={preset}", *settings, *overrides], output_dir=tmp_path, store_dir=store)
    found = run_experiment(config)
    assert found["status"] == "completed"
    changed = [word.split("=")[0] for word in overrides if word.startswith("dataset.")]
    assert found["samples"]["train"] < 461 or not {"dataset.train_fraction", "dataset.imbalance_ratio"} & {*changed}
    recipe = found["config"]["teacher"]["recipe"]
    for name in (word.removeprefix("dataset.") for word in changed):
        if name not in ("train_fraction", "class_sampling"):
            assert recipe[name] == found["config"]["dataset"][name], "the teacher knows more than the student"


def test_a_long_cell_has_a_short_name():
    values = {"dataset": {"source": {}}, "student": {"width": 1}}
    cell = {f"student.setting_{i}": "x" * 50 for i in range(9)}
    assert len(name_job(values, cell, is_control=False, fingerprint="0123456789")) < 140


def test_a_sweeps_folder_tells_of_what_and_over_what():
    assert name_sweep("digits", ["alpha", "student.width"], "abcdef012345") == "digits_alpha_student.width-abcdef"
    assert name_sweep("digits", ["dataset", "seed"], "abcdef012345") == "dataset_seed-abcdef"


def test_the_key_of_a_run_changes_with_ones_own_code(tmp_path, monkeypatch):
    values = plain(compose(["experiment=smoke"], output_dir=tmp_path))
    monkeypatch.setenv("KDEXP_TRUST", "my_losses.odd,mine_alone")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_losses").mkdir()
    keys = []
    for path, content in [("my_losses/odd.py", "a = 1"), ("my_losses/odd.py", "a = 2"), ("mine_alone.py", ""),
                          ("other.py", "")]:  # fmt: skip
        (tmp_path / path).write_text(content)
        code_version.cache_clear()
        keys.append(Identity(values).key)
    code_version.cache_clear()
    assert len(set(keys)) == 3
    assert keys[2] == keys[3], "not a package that is trusted"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rerun=some", r"^rerun must be null or all, got some$"),
        ("sweep_name='a/b'", r"^sweep_name must be letters, digits, _, . and -, got a/b$"),
        ("sweep_name=..", r"^sweep_name must be letters, .*, got \.\.$"),
    ],
)
def test_a_wrong_setting_of_a_sweep_is_said(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        check(compose(["experiment=smoke", override], output_dir=tmp_path))


def hold(folder: Path, seconds: float, ready) -> None:
    with recording.recording(folder, {**FACTS, "key": "k", "launch": "other"}):
        ready.set()
        time.sleep(seconds)


@pytest.fixture
def running(tmp_path):
    """A process that runs in seed-0 until it is killed."""
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "seed-0", 60, ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


@pytest.mark.slow
def test_a_run_is_running_while_its_process_lives_and_killed_after(tmp_path, running):
    sweep = Sweep(tmp_path, [job()], "kdexp-train -m")
    assert results.read(tmp_path / "seed-0", "run")["status"] == "running"
    (now,) = sweep.states()
    assert now.status == "running"
    assert now.seconds >= 0
    with pytest.raises(ValueError, match=r"^output_dir must not be in use by another run, got .*seed-0$"):
        run_folder.alone(tmp_path / "seed-0").__enter__()
    running.kill()
    running.join()
    assert results.read(tmp_path / "seed-0", "run")["status"] == "killed"
    (now,) = sweep.states()
    assert (now.status, now.has_failed) == ("killed", True)
    assert sweep.is_to_run(now)


def test_how_a_run_died_is_noted_unless_it_said_so_itself(tmp_path):
    run(tmp_path / "a", "running")
    recording.mark_dead(tmp_path / "a", "killed", "killed by SIGSEGV")
    assert results.read(tmp_path / "a", "run")["error"] == "killed by SIGSEGV"
    run(tmp_path / "b", "diverged", error="nan")
    recording.mark_dead(tmp_path / "b", "killed", "killed by SIGSEGV")
    assert results.read(tmp_path / "b", "run")["status"] == "diverged"


def test_the_index_tells_what_the_folders_say(tmp_path):
    run(tmp_path / "seed-0", started="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:01:30+00:00")
    run(tmp_path / "seed-1", "failed", error="ValueError: no")
    (tmp_path / "seed-1" / "train.log").write_text("".join(f"line {i}\n" for i in range(100)))
    (tmp_path / "seed-1" / "metrics.csv").write_text("epoch,val/acc\n0,0.5\n1,0.75\n2,0.25\n")
    run(tmp_path / "seed-2", key="of another code version")
    Sweep(tmp_path, [job(i) for i in range(4)], "kdexp-train -m seed=0,1,2,3")
    index = json.loads((tmp_path / "sweep.json").read_text())
    assert index["schema_version"] == 1
    assert index["name"] == tmp_path.name
    assert index["command"] == "kdexp-train -m seed=0,1,2,3"
    done, failed, other, waiting = index["jobs"]
    assert done == {
        "number": 0, "overrides": ["dataset=digits", "seed=0"], "folder": "seed-0", "key": "k", "epochs": 4,
        "status": "completed", "seconds": 90.0, "epoch": 0, "val_acc": 0.9, "error": None, "log_tail": [],
        "launch": None, "trial": None, "tuned": None, "stale": None, "part": None,
    }  # fmt: skip
    assert (failed["status"], failed["epoch"], failed["val_acc"]) == ("failed", 3, 0.75)
    assert failed["error"] == "ValueError: no"
    assert failed["log_tail"] == [f"line {i}" for i in range(80, 100)]
    assert (other["status"], waiting["status"]) == ("waiting", "waiting")


@pytest.mark.parametrize("index", ["{", "[]", '{"jobs": [{}]}', "[" * 100_000], ids=lambda text: text[:20])
def test_an_index_that_is_damaged_is_written_anew(tmp_path, index):
    (tmp_path / "sweep.json").write_text(index)
    sweep = Sweep(tmp_path, [job(0)], "kdexp-train -m")
    assert [state.status for state in sweep.states()] == ["waiting"]
    with sweep.watched(lambda states: None):
        pass
    assert [entry["folder"] for entry in json.loads((tmp_path / "sweep.json").read_text())["jobs"]] == ["seed-0"]
    assert (tmp_path / "sweep.damaged.json").read_text() == index  # what only it told of is not lost


def test_an_entry_that_is_damaged_costs_no_other(tmp_path):
    Sweep(tmp_path, [job(0), job(1)], "kdexp-train -m")
    index = json.loads((tmp_path / "sweep.json").read_text())
    del index["jobs"][0]["key"]
    (tmp_path / "sweep.json").write_text(json.dumps(index))
    Sweep(tmp_path, [job(2)], "kdexp-train -m")
    entries = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert {entry["folder"] for entry in entries} == {"seed-1", "seed-2"}
    assert json.loads((tmp_path / "sweep.damaged.json").read_text()) == index


@pytest.mark.parametrize("content", ["[" * 100_000, "{", json.dumps({"schema_version": 1, "status": "?"})])
def test_a_job_whose_results_are_damaged_is_failed_and_the_others_are_told_of(tmp_path, content):
    sweep = Sweep(tmp_path, [job(0), job(1)], "kdexp-train -m")
    run(tmp_path / "seed-1")
    (tmp_path / "seed-1" / "metrics.csv").write_text("epoch,val/acc\n0,what\n")
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "results.json").write_text(content)
    assert [state.status for state in sweep.states()] == ["failed", "completed"]
    sweep.set_aside()
    aside = sorted((tmp_path / "superseded").iterdir())  # without a readable one its name is of random digits
    assert [path.name[:7] for path in aside] == ["seed-0-", "seed-1-"]
    assert (aside[0] / "results.json").read_text() == content


def test_a_job_that_ran_with_changed_code_is_for_another_launch(tmp_path, capsys):
    """It is of another version than the jobs before it: not one of this sweep's results, nor worth a second try."""
    sweep = Sweep(tmp_path, [job(0), job(1)], "kdexp-train -m seed=0,1")
    run(tmp_path / "seed-0", launch=sweep.launch)
    run(tmp_path / "seed-1", key="of another code version", launch=sweep.launch, code_version="0.1+new")
    done, other = sweep.states()
    assert (done.status, other.status) == ("completed", "waiting")
    assert sweep.is_unfinished(other)
    assert not sweep.is_to_run(other)
    show_left(tmp_path, [done, other], sweep.command)
    assert "the code has changed since the sweep began: this is of 0.1+new" in capsys.readouterr().out
    assert Sweep(tmp_path, [job(0), job(1, key="of another code version")], "").states()[1].status == "completed"


def test_a_job_whose_data_changed_is_to_run_again(tmp_path):
    run(tmp_path / "seed-0")
    assert [state.status for state in Sweep(tmp_path, [job(0)], "").states()] == ["completed"]
    sweep = Sweep(tmp_path, [replace(job(0), stale="w")], "")
    assert [state.status for state in sweep.states()] == ["waiting"]
    run(tmp_path / "seed-0", wandb_id="another")
    assert [state.status for state in sweep.states()] == ["completed"]


def test_a_job_has_the_folder_of_the_one_of_the_same_words_before(tmp_path):
    """What they say is another thing now: mean and std of a table that has another row, say."""
    before = job(0, key="of another table")
    Sweep(tmp_path, [before, job(1)], "")
    now = replace(job(0, key="of this table"), folder="seed-0-1234")
    assert [one.folder for one in placed(tmp_path, [now, job(1)])] == [before.folder, job(1).folder]


def test_no_two_jobs_have_one_folder(tmp_path):
    """Of two options whose files were changed: one is now what the other was."""
    Sweep(tmp_path, [job(0, key="k1"), job(1, key="k2")], "")
    now = [replace(job(0, key="k2"), folder="new-0"), replace(job(1, key="k3"), folder="new-1")]
    assert [one.folder for one in placed(tmp_path, now)] == ["seed-1", "new-1"]


def test_a_job_that_was_typed_with_old_names_is_found_under_those_of_today(tmp_path):
    before = Job(("dataset.resample=balanced", "teacher.cache=static"), "dataset.resample-balanced-1", "old", 4)
    Sweep(tmp_path, [before], "kdexp-train")
    now = Job(("dataset.class_sampling=balanced", "teacher.cache=unaugmented"), "another", "new", 4)
    assert [one.folder for one in placed(tmp_path, [now])] == [before.folder]
    assert job_overrides(tmp_path) == [list(now.overrides)]


def test_a_second_launch_adds_its_jobs_and_every_job_keeps_its_number(tmp_path):
    Sweep(tmp_path, [job(1), job(2)], "first")
    Sweep(tmp_path, [job(3), job(2), job(1)], "second")
    run(tmp_path / "seed-1")
    third = Sweep(tmp_path, [job(2)], "third")
    with third.watched(lambda states: None):
        pass
    index = json.loads((tmp_path / "sweep.json").read_text())
    assert {entry["folder"]: entry["number"] for entry in index["jobs"]} == {"seed-1": 0, "seed-2": 1, "seed-3": 2}
    assert [entry["status"] for entry in index["jobs"]] == ["completed", "waiting", "waiting"]
    assert [state.number for state in third.states()] == [1]


def test_a_job_is_found_by_what_it_computes_whatever_was_swept_when_it_ran(tmp_path):
    trial = Job(("alpha=0.3",), "trial-0", "searched", 4, trial=0)
    Sweep(tmp_path, [Job(("seed=0",), "digits", "first", 4), trial], "kdexp-train -m seed=0")
    run(tmp_path / "digits", key="first")
    jobs = [Job((f"seed={number}",), f"seed-{number}", key, 4) for number, key in enumerate(["first", "second"])]
    again = Sweep(tmp_path, placed(tmp_path, jobs), "kdexp-train -m seed=0,1")
    assert [(one.job.folder, one.status) for one in again.states()] == [("digits", "completed"), ("seed-1", "waiting")]
    searched = Job(("alpha=0.3",), "alpha-0.3", "searched", 4)  # a trial was not measured on test
    assert placed(tmp_path, [searched]) == [searched]


def test_what_is_set_aside_is_all_there_and_the_folder_is_free(tmp_path):
    folder = tmp_path / "seed-0"
    run(folder)
    for path in ("checkpoints/last.ckpt", "student.safetensors", "train.log", ".hydra/hydra.yaml"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(path)
    run_folder.set_aside(folder)
    aside = tmp_path / "superseded" / "seed-0-w"
    for path in ("checkpoints/last.ckpt", "student.safetensors", "train.log", ".hydra/hydra.yaml"):
        assert (aside / path).read_text() == path
    assert results.read(aside, "run")["status"] == "completed"
    assert {path.name for path in folder.iterdir()} == {".lock", ".hydra", "train.log"}
    assert Sweep(tmp_path, [job()], "").states()[0].status == "waiting"


def test_a_move_that_was_cut_short_is_completed(tmp_path, monkeypatch):
    folder = tmp_path / "seed-0"
    run(folder)
    for name in ("a", "b"):
        (folder / name).write_text(name)
    rename, moved = Path.rename, []

    def fail_second(self, target):
        if len(moved) == 1:
            raise KeyboardInterrupt
        moved.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(KeyboardInterrupt):
        run_folder.set_aside(folder)
    monkeypatch.undo()
    assert (folder / "results.json").is_file()
    run_folder.set_aside(folder)
    assert {path.name for path in (tmp_path / "superseded" / "seed-0-w").iterdir()} == {"a", "b", "results.json"}


def take(count: int, visible: list[str], folder: Path, taken) -> None:
    taken.put(gpus.reserve_gpus(count, visible, folder))
    time.sleep(60)


def test_jobs_are_spread_over_gpus_and_what_a_job_held_is_free_when_it_ends(tmp_path):
    context = multiprocessing.get_context("forkserver")
    taken, processes = context.Queue(), []

    def start(count: int) -> list[str]:
        processes.append(context.Process(target=take, args=(count, ["3", "5"], tmp_path, taken)))
        processes[-1].start()
        return taken.get(timeout=60)

    try:
        assert [start(count) for count in (1, 1, 1, 2)] == [["3"], ["5"], ["3"], ["5", "3"]]
        processes[1].kill()
        processes[1].join()
        assert start(1) == ["5"]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_time_left_goes_by_what_jobs_took():
    done, runs, waits = state(0, "completed", seconds=60.0), state(1, "running", seconds=20.0), state(2, "waiting")
    assert seconds_left([done, runs, waits]) == pytest.approx(40 + 60)
    assert seconds_left([done, runs, state(3, "running", seconds=50.0), waits]) == pytest.approx((40 + 10 + 60) / 2)
    assert seconds_left([state(1, "running", seconds=20.0, epoch=1), waits]) == pytest.approx(60 + 80)
    assert seconds_left([state(1, "running", seconds=1.0), waits]) is None


def test_a_job_is_called_by_what_makes_it_differ():
    assert settings([state(0, "waiting"), state(1, "waiting")]) == {0: "seed=0", 1: "seed=1"}
    assert settings([state(0, "waiting")]) == {0: "dataset=digits seed=0"}


def test_runs_that_were_done_before_their_control_are_found(tmp_path):
    jobs = [job(number) for number in range(5)]
    Sweep(tmp_path, jobs, "command")
    told = {"tool": "wandb", "location": "here", "group": None, "control": "w"}
    untold = told | {"control": None}
    run(tmp_path / "seed-0", control_fingerprint="a", tracking=untold)
    run(tmp_path / "seed-1", control_fingerprint="a", tracking=told)
    run(tmp_path / "seed-2", control_fingerprint="b", tracking=untold)
    run(tmp_path / "seed-3", control_fingerprint="a", tracking=untold | {"location": None})
    assert without_gain(tmp_path) == {}, "no control is done yet"
    run(tmp_path / "seed-4", control_fingerprint="a", is_control=True, tracking=untold)
    assert without_gain(tmp_path) == {tmp_path / "seed-0": tmp_path / "seed-4"}


def test_a_search_has_its_own_control_for_each_seed_whatever_the_recipe(tmp_path):
    tuned = {"trials": 4, "settings": ["optimizer.lr"], "control_trials": 4, "control_settings": ["optimizer.lr"]}
    Sweep(tmp_path, [job(0), *(replace(job(number), tuned=tuned) for number in range(1, 5))], "command")
    untold = {"tool": "wandb", "location": "here", "group": None, "control": None}
    run(tmp_path / "seed-0", control_fingerprint="a", seed=0, is_control=True, tracking=untold)  # of no trial
    for number, (seed, recipe, is_control) in enumerate([(0, "a", False), (1, "b", False), (1, "c", True)], start=1):
        known = {"control_fingerprint": recipe, "seed": seed, "is_control": is_control, "tracking": untold}
        run(tmp_path / f"seed-{number}", **known)
    assert without_gain(tmp_path) == {tmp_path / "seed-2": tmp_path / "seed-3"}
    run(tmp_path / "seed-4", control_fingerprint="d", seed=0, is_control=True, tracking=untold)
    late = {tmp_path / "seed-1": tmp_path / "seed-4", tmp_path / "seed-2": tmp_path / "seed-3"}
    assert without_gain(tmp_path) == late


def test_the_wandb_runs_of_a_sweep_are_linked_in_one_folder_that_may_be_moved(tmp_path):
    sweep = tmp_path / "sweep"
    Sweep(sweep, [job(0), job(1)], "command")
    assert link_wandb(sweep) is None
    for number in (0, 1):
        (sweep / f"seed-{number}" / "wandb" / f"offline-run-{number}").mkdir(parents=True)
    for _ in range(2):
        assert link_wandb(sweep) == sweep / "wandb-runs"
    check_folder(sweep, "sweep_name")
    moved = sweep.rename(tmp_path / "moved")
    found = sorted(path.name for path in (moved / "wandb-runs").iterdir() if path.is_dir())
    assert found == ["offline-run-0", "offline-run-1"]
    shutil.rmtree(moved / "seed-0")  # set aside, say
    link_wandb(moved)
    assert [path.name for path in (moved / "wandb-runs").iterdir()] == ["offline-run-1"]


def test_the_command_to_run_again_is_quoted_and_does_not_force():
    typed = ["/usr/bin/kdexp-train", "-m", "feature_loss=[at,rkd]", "rerun=all", "seed=0,1"]
    assert command_line(typed) == "kdexp-train -m 'feature_loss=[at,rkd]' seed=0,1"


def test_without_a_terminal_a_line_is_printed_when_a_job_starts_waits_or_ends(tmp_path, capsys):
    waits = ("[time] teacher: waiting for another process that is training it",)
    with Progress(tmp_path, "sweep of 3 jobs") as progress:
        progress.show([state(0, "running"), state(1, "waiting"), state(2, "completed", val_acc=0.5, seconds=1.0)])
        for _ in range(3):
            progress.show([state(0, "running"), state(1, "running", log_tail=waits), state(2, "completed")])
        progress.show([state(0, "killed", error="by SIGKILL"), state(1, "completed", val_acc=0.75, seconds=75.2),
                       state(2, "completed")])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sweep of 3 jobs, 1 completed before"
    assert lines[1] == "job 0 running: seed=0"
    assert lines[2] == "job 1 waits for the teacher that another job trains: seed=1"
    assert lines[3].startswith(
        "job 0 killed: seed=0: by SIGKILL  [3/3 finished, 2 completed, 1 killed, best val acc 75.00 % (seed=1)"
    )
    assert lines[4].startswith("job 1 completed in 1 min 15 s, val acc 75.00 %: seed=1")
    assert len(lines) == 5


def test_the_live_table_shows_what_runs_and_what_failed_and_counts_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    states = [state(i, "waiting") for i in range(100)]
    states[3:5] = [state(3, "running", epoch=2, val_acc=0.5, seconds=3.0), state(4, "failed", val_acc=0.25)]
    with Progress(tmp_path, "sweep") as progress:
        progress.show(states)
    shown = capsys.readouterr().out
    assert "98 waiting" in shown
    for words in ("2/4", "50.00 %", "seed=3", "failed", "seed=4", "best val acc 50.00 % (seed=3)"):
        assert words in shown
    assert "seed=50" not in shown
    assert "1/100 finished" in shown
    assert shown.count("\n") < 16


def test_at_the_end_what_failed_is_listed_with_its_reason_its_log_and_the_command(tmp_path, capsys):
    show_left(tmp_path, [state(0, "completed"), state(1, "oom", error="CUDA out of memory")], "kdexp-train -m seed=0,1")
    shown = capsys.readouterr().out
    assert "1 of 2 jobs did not complete: 1 oom" in shown
    assert "CUDA out of memory" in shown
    assert f"log of job 1: {tmp_path}/seed-1/train.log" in shown
    assert "run again     kdexp-train -m seed=0,1" in shown


def test_a_stop_is_asked_of_one_launch_alone(tmp_path):
    one, other = Sweep(tmp_path, [job()], ""), Sweep(tmp_path, [job()], "")
    one.request_stop()
    assert os.listdir(tmp_path / ".stop") == [one.launch]
    assert one.launch != other.launch


def test_slurm_is_asked_for_a_task_and_a_gpu_for_each_rank():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="not installed: pip install kdexp[slurm]")
    overrides = ["hydra/launcher=slurm", "trainer=ddp", "trainer.devices=4", "hydra.launcher.partition=gpu"]
    with initialize_config_module("kdexp.conf", version_base=HYDRA_VERSION_BASE):
        launcher = compose_hydra("train", overrides, return_hydra_config=True).hydra.launcher
        params = instantiate(launcher).params
    assert (params["nodes"], params["tasks_per_node"], params["gpus_per_node"]) == (1, 4, 4)
    assert (params["partition"], params["signal_delay_s"]) == ("gpu", 120)


def test_the_controls_of_soft_labels_train_and_are_calibrated(tmp_path, store):
    settings = ["experiment=[soft_label_controls,smoke]", "tracking=none", "trainer.max_epochs=1",
                "teacher.recipe.max_epochs=1", "distillation=matched_smoothing"]  # fmt: skip
    found = run_experiment(compose(settings, output_dir=tmp_path, store_dir=store))
    assert (found["choices"]["loss"], found["alpha"]) == ("matched_smoothing", 0.1)
    metrics = json.loads((tmp_path / "robustness.json").read_text())["metrics"]
    assert {"ece", "ece_scaled", "nll_scaled"} <= set(metrics["calibration"])


def close_in_the_end(path):
    def close():
        time.sleep(0.3)
        Path(path).touch()

    multiprocessing.util.Finalize(None, close, exitpriority=0)  # as semaphores are closed


@pytest.mark.slow
def test_the_process_that_checks_settings_closes_what_it_has_open(tmp_path):
    subprocess_runner.check_all(close_in_the_end, [str(tmp_path / "closed")])
    assert (tmp_path / "closed").exists()


def test_a_launch_that_is_interrupted_between_two_stages_says_how_to_go_on(tmp_path, capsys):
    run(tmp_path / "seed-0")
    sweep = Sweep(tmp_path, [job(0)], "kdexp-train -m seed=0")
    progress = Progress(tmp_path, "sweep", lambda: 0)
    none = {"launcher": "basic", "tracking": {}}
    launch.run(sweep, progress, lambda *_: None, lambda _: None, **none)
    assert "run again" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        launch.run(sweep, progress, lambda *_: signal.raise_signal(signal.SIGINT), lambda _: None, **none)
    assert left.value.code == 128 + signal.SIGINT
    assert "run again     kdexp-train -m seed=0" in capsys.readouterr().out


@pytest.mark.parametrize(("trial", "says"), [(None, True), (0, False)])
def test_a_trial_that_diverged_is_done(tmp_path, capsys, trial, says):
    diverged = state(0, "diverged", error="NaN")
    show_left(tmp_path, [replace(diverged, job=replace(diverged.job, trial=trial))], "kdexp-train -m seed=0")
    assert ("run again     kdexp-train -m seed=0" in capsys.readouterr().out) is says


def test_a_control_of_a_sweep_stays_one_whatever_is_typed_for_the_others():
    from hydra_plugins.kdexp.sweeper import _meant

    typed = [
        "alpha=0.3",
        "++alpha_schedule.kind=linear",
        "alpha_schedule={kind:linear,final:0.2}",
        "feature_loss=at",
        "feature_loss.at.weight=2",
        "scheme=cross_domain",
        "dataset@scheme.source=mnist8",
    ]
    of_all = ["scheme@teacher.recipe.scheme=pgd_at", "teacher.recipe.scheme.attack.steps=2"]
    assert _meant(["distillation=control", *typed, *of_all], "") == ["distillation=control", *of_all]
    assert _meant(["distillation=hinton", *typed], "") == ["distillation=hinton", *typed]
    values = [
        plain(compose(_meant([way, "student=cnn", "scheme=pgd_at", *typed[:5]], ""), output_dir=""))
        for way in ("distillation=control", "alpha=0.2")
    ]
    assert [Identity(each).is_control for each in values] == [True, False]


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        (["distillation=control,[]"], [["distillation=control"], ["distillation=[]"]]),
        (
            ["experiment=function_matching", "distillation=control,[]"],
            [
                ["experiment=function_matching", "distillation=control"],
                ["experiment=function_matching", "distillation=soft_only"],
            ],
        ),
        (
            ["experiment=smoke,function_matching", "distillation=control,[]"],
            [
                ["experiment=smoke", "distillation=control"],
                ["experiment=smoke"],
                ["experiment=function_matching", "distillation=control"],
                ["experiment=function_matching"],
            ],
        ),
        (["distillation=control", "alpha=0.1,0.5"], [["distillation=control", f"alpha={a}"] for a in (0.1, 0.5)]),
        (["distillation=[]", "seed=0,1"], [["distillation=[]", f"seed={seed}"] for seed in (0, 1)]),
    ],
)
def test_what_is_distilled_in_a_sweep_has_the_preset_of_its_experiment(monkeypatch, typed, jobs):
    from hydra_plugins.kdexp.sweeper import Sweeper

    made = Sweeper(None)
    with initialize_config_module("kdexp.conf", version_base=HYDRA_VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        made.config = loader.load_configuration("train", typed, RunMode.MULTIRUN)
    given = OverridesParser.create().parse_overrides(typed)
    made._given = [{override.get_key_element(): override for override in given}]
    monkeypatch.setattr(made, "_compose", lambda cell: OmegaConf.create())
    monkeypatch.setattr(made, "_job", lambda cell, swept, values: Job(tuple(cell), "", str(cell), None))
    monkeypatch.setattr(made, "_check_all", lambda configs: None)
    assert [list(job.overrides) for job in made._jobs()[1]] == jobs
