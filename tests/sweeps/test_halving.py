"""Halving a family of students: who goes on, how far each trains, and that what goes on is as in the whole sweep."""

import csv
import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from warm_programs import Program, environment

from kdexp import results
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.report.budget import Budget, Taken, key_of, read, write
from kdexp.sweeps import launch
from kdexp.sweeps.halving import PARTS, Halving
from kdexp.sweeps.progress import Progress
from kdexp.sweeps.pruning import PART, PausingPruner, epochs_of, pruner_of
from kdexp.sweeps.sweep import Job, State, Sweep

EPOCHS = 8
SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("part", "planned", "ends_after"),
    [(0.25, 8, 2), (0.5, 8, 4), (1.0, 8, None), (0.25, 10, 3), (0.5, 3, 2), (0.25, 2, 1), (0.5, 1, None)],
)
def test_a_trial_is_paused_when_its_part_is_done(part, planned, ends_after):
    pruner, said = PausingPruner(part), {}
    for done in range(1, planned + 1):
        said[done] = pruner([{"epoch": float(epoch)} for epoch in range(done)], planned)
    paused = [done for done, reason in said.items() if reason]
    assert paused == ([] if ends_after is None else [*range(ends_after, planned)])
    assert all(said[done] == f"paused after epoch {done} of {planned}" for done in paused)


def test_the_environment_says_how_far_a_trial_goes(monkeypatch):
    monkeypatch.delenv("KDEXP_TRIAL", raising=False)
    monkeypatch.delenv(PART, raising=False)
    assert pruner_of("here") is None
    monkeypatch.setenv(PART, "0.5")
    assert pruner_of("here")([{"epoch": 1.0}], 4) == "paused after epoch 2 of 4"
    assert [epochs_of(part, 10) for part in PARTS] == [3, 5, 10]


@cache
def composed(words):
    return plain(compose(["+sweep=budget", "budget.bytes=1e6", *words], output_dir=""))


class Family:
    """A sweep of students that take and learn what is said here, without a program.

    Args:
        folder: of the sweep.
        curves: width -> accuracy on val by epoch; None: its run fails; "diverges" in place of one of a later epoch.
        limit: milliseconds; a student of width w takes w bytes and w ms.
    """

    def __init__(self, folder, curves, limit=1000.0, more=(), monitor="val/acc", measure="acc"):
        self.folder, self.curves, self.monitor, self.measure = folder, curves, monitor, measure
        self.values, self.jobs, students = {}, [], {}
        for width in curves:
            for alpha in ("0.5", *more, "1"):
                for seed in range(2):
                    words = ("student=cnn", f"student.width={width}", f"alpha={alpha}", f"seed={seed}")
                    values = composed(words)
                    identity = Identity(values)
                    self.values[identity.key] = values
                    self.jobs.append(Job(words, f"{width}-{alpha}-{seed}", identity.key, None))
            key = key_of(values["student"], 1)
            students[key] = Taken(str(width), width, width, 1, 1, 1, 1, 1, "p")
        write(folder, Budget({"latency_ms": limit}, None, list(students), students, {}))
        self.began: list[list[str]] = []

    def run(self, stage: Sweep) -> None:
        """Do what the launcher does."""
        begun = []
        for state in stage.states():
            if stage.is_to_run(state):
                begun.append(state.job.folder)
                self.train(state.job, stage.launch)
        self.began.append(begun)

    def train(self, job: Job, launch: str) -> None:
        width, alpha, seed = job.folder.split("-")
        curve = self.curves[int(width)]
        curve = curve if not isinstance(curve, dict) else curve[alpha]
        facts = {"schema_version": 2, "config": self.values[job.key], "overrides": [*job.overrides], "seed": int(seed),
                 "key": job.key, "launch": launch, "measure": self.measure, "is_control": alpha == "1",
                 "control_fingerprint": "c", "epochs": {"planned": EPOCHS, "monitor": self.monitor}}  # fmt: skip
        if curve is None:
            results.write(self.folder / job.folder, facts | {"status": "failed", "error": "no"})
            return
        done = EPOCHS if job.part is None else epochs_of(job.part, EPOCHS)
        status = "completed" if done == EPOCHS else "pruned"
        if "diverges" in curve[:done]:
            status, done = "diverged", curve.index("diverges")
        rows = [
            {"epoch": epoch, "val/acc": curve[epoch], "val/nll": 1 - curve[epoch], "val/loss": 1 / (1 + epoch)}
            for epoch in range(done)
        ]
        (self.folder / job.folder).mkdir(exist_ok=True)
        with (self.folder / job.folder / "metrics.csv").open("w") as file:
            table = csv.DictWriter(file, ["epoch", "val/acc", "val/nll", "val/loss"])
            table.writeheader()
            table.writerows(rows)
        metrics = {"val": {"best": {"acc": max(row["val/acc"] for row in rows), "nll": 0.1}}} if rows else {}
        tested = {"test": {"best": {"acc": 0.5}}} if job.trial is None else {}
        results.write(self.folder / job.folder, facts | {"status": status, "metrics": metrics | tested})

    def halve(self, launch="first") -> Sweep:
        halving = Halving(self.folder, self.jobs, self.values)
        sweep = Sweep(self.folder, halving.trials, "command", launch)
        for stage in halving.stages(sweep, afresh=False):
            self.run(stage)
        return sweep

    def behind(self) -> dict[int, str]:
        found = read(self.folder)
        return {found.students[key].bytes: how for key, how in found.behind.items()}


def rising(last, *first):
    """Accuracies that end at the last one, by way of the first ones."""
    return [*first, *[last] * (EPOCHS - len(first))]


def folders(widths, seeds=(0,), alpha="0.5"):
    return [f"{width}-{alpha}-{seed}" for width in widths for seed in seeds]


def test_the_better_half_goes_on_and_what_is_left_is_run_whole_beside_its_control(tmp_path):
    # After two epochs the order is 60, 50, 40, 30, 20, 10; 20 and 10 would be the best in the end.
    curves = {width: rising(width / 100, 0.0, width / 100) for width in (10, 20, 30, 40, 50, 60)}
    curves[10][4:], curves[20][4:] = [0.9] * 4, [0.8] * 4
    family = Family(tmp_path, curves)
    sweep = family.halve()
    quarter, half, end, last = family.began
    assert quarter == folders([10, 20, 30, 40, 50, 60])
    assert half == folders([40, 50, 60]), "all fit half of the budget"
    assert end == folders([50, 60])
    assert sorted(last) == sorted([*folders([60], [0, 1]), *folders([60], [0, 1], "1")])
    assert family.behind() == dict.fromkeys((10, 20, 30), "behind after epoch 2") | {
        40: "behind after epoch 4",
        50: "behind after epoch 8",
    }
    status = {state.job.folder: state.status for state in sweep.states()}
    assert status == dict.fromkeys(folders([10, 20, 30, 40]), "pruned") | dict.fromkeys(
        [*folders([50]), *last], "completed"
    )
    assert not any(sweep.is_unfinished(state) for state in sweep.states())
    assert "test" not in results.read(tmp_path / "50-0.5-0", "run")["metrics"], "what is not taken is not looked at"


def test_what_is_shown_waits_for_its_next_part(tmp_path):
    family = Family(tmp_path, {10: rising(0.1), 20: rising(0.2)})
    halving = Halving(tmp_path, family.jobs, family.values)
    sweep = Sweep(tmp_path, halving.trials, "command")
    stages = halving.stages(sweep, afresh=False)
    for shown in (["waiting", "waiting"], ["pruned", "waiting"], ["pruned", "waiting"]):
        stage = next(stages)
        assert [state.status for state in sweep.states()] == shown
        family.run(stage)


def test_the_student_for_half_of_the_budget_has_a_half_of_its_own(tmp_path):
    curves = {width: rising(width / 100) for width in (10, 20, 30, 70, 80, 90)}
    family = Family(tmp_path, curves, limit=90.0)
    family.halve()
    _, half, end, last = family.began
    assert half == folders([20, 30, 70, 80, 90])
    assert end == folders([30, 70, 80, 90]), "of five the better three, of two the better one"
    assert {name.split("-")[0] for name in last} == {"30", "80", "90"}


def test_the_choice_is_by_the_best_epoch_so_far_and_of_equals_by_nll(tmp_path):
    curves = {10: [0.5, 0.2, *[0.9] * 6], 20: [0.4, 0.4, *[0.9] * 6]}
    family = Family(tmp_path, curves)
    family.halve()
    assert family.behind() == {20: "behind after epoch 2"}


@pytest.mark.parametrize(("monitor", "behind"), [("val/acc", 20), ("val/loss", 10)])
def test_an_epoch_counts_that_the_run_itself_would_choose(tmp_path, monitor, behind):
    family = Family(tmp_path, {10: rising(0.5, 0.9), 20: rising(0.6)}, monitor=monitor)
    family.halve()
    assert family.behind() == {behind: "behind after epoch 2"}


def test_of_a_metric_that_is_to_be_low_the_lower_is_better(tmp_path):
    family = Family(tmp_path, {10: rising(0.5), 20: rising(0.6)}, measure="nll")  # 1 - these
    family.halve()
    assert family.behind() == {10: "behind after epoch 2"}


def test_all_are_run_again_where_that_is_asked_for(tmp_path):
    family = Family(tmp_path, {10: rising(0.1), 20: rising(0.2)})
    family.halve()
    first, family.began = family.began, []
    halving = Halving(tmp_path, family.jobs, family.values)
    sweep = Sweep(tmp_path, halving.trials, "command", "second")
    sweep.set_aside()  # as every sweep does of what it begins with
    for stage in halving.stages(sweep, afresh=True):
        family.run(stage)
    assert family.began == first
    assert len(list((tmp_path / results.SUPERSEDED).iterdir())) == 5


def test_one_that_fails_or_diverges_is_not_compared_and_the_next_launch_tries_what_failed(tmp_path):
    curves = {10: rising(0.5), 20: None, 30: rising(0.6, 0.1, 0.1, 0.1, "diverges"), 40: [0.7, "diverges"]}
    family = Family(tmp_path, curves)
    sweep = family.halve()
    assert family.began[1] == folders([10, 30][:1])
    assert family.behind() == {30: "behind after epoch 2", 40: "diverged"}
    assert [state.job.folder for state in sweep.states() if sweep.is_unfinished(state)] == folders([20])
    family.curves[20] = rising(0.9)
    family.began.clear()
    again = family.halve("second")
    assert family.began[0] == folders([20])
    assert family.began[1:3] == [folders([20]), folders([20])]
    assert family.behind() == {10: "behind after epoch 4", 30: "behind after epoch 2", 40: "diverged"}
    assert not any(again.is_unfinished(state) for state in again.states())


def test_a_finished_one_is_not_run_again_and_another_budget_continues_what_it_needs(tmp_path):
    curves = {width: rising(width / 100) for width in (10, 20, 30, 70, 80, 90)}
    family = Family(tmp_path, curves, limit=90.0)
    family.halve()
    family.began.clear()
    family.halve("second")
    assert family.began == [[], [], [], []]
    known = read(tmp_path)
    write(tmp_path, replace(known, limits={"latency_ms": 20.0}))
    family.jobs = [job for job in family.jobs if job.folder.split("-")[0] in ("10", "20")]
    family.began.clear()
    family.halve("third")
    assert family.began[:3] == [[], folders([10]), [*folders([10]), *folders([20])]]


def test_what_a_trial_did_later_changes_no_choice(tmp_path):
    curves = {10: rising(0.1), 20: rising(0.2), 30: rising(0.3), 40: [*rising(0.4)[:5], "diverges"]}
    family = Family(tmp_path, curves)
    family.halve()
    behind = family.behind()
    assert behind == dict.fromkeys((10, 20), "behind after epoch 2") | {30: "behind after epoch 4", 40: "diverged"}
    family.began.clear()
    family.halve("second")
    assert (family.began, family.behind()) == ([[], [], [], []], behind)


@pytest.mark.parametrize("status", ["running", "failed"])
def test_one_that_another_launch_is_at_by_now_is_compared(tmp_path, status):
    family = Family(tmp_path, {10: rising(0.1), 20: rising(0.2)})
    halving = Halving(tmp_path, family.jobs, family.values)
    stages = halving.stages(Sweep(tmp_path, halving.trials, "command", "slow"), afresh=False)
    family.run(next(stages))
    ahead = tmp_path / folders([20])[0]
    results.write(ahead, {**results.read(ahead, "run"), "status": status, "launch": "fast"})
    assert [state.job.folder for state in next(stages).states()] == folders([20])


def test_one_without_a_table_of_epochs_is_not_compared(tmp_path):
    family = Family(tmp_path, {10: rising(0.1), 20: rising(0.2)})
    for job in family.jobs:
        family.train(job, "whole")
    (tmp_path / folders([20])[0] / "metrics.csv").unlink()
    family.halve()
    assert (family.began, family.behind()) == ([[], [], [], []], {})


@pytest.mark.parametrize(
    ("curve", "end"), [(rising(0.5), nullcontext()), (["diverges"], pytest.raises(SystemExit, match=r"^1$"))]
)
def test_the_program_fails_where_all_trials_diverge(tmp_path, curve, end):
    sweep = Family(tmp_path, {10: ["diverges"], 20: curve}).halve()
    with end:
        launch.run(sweep, Progress(tmp_path, ""), lambda *_: None, lambda _: None, launcher="none", tracking={})


def test_settings_of_the_loss_compete_too_and_a_student_is_behind_with_all_of_them_only(tmp_path):
    curves = {10: {"0.5": rising(0.5), "0.9": rising(0.9), "1": rising(0.4)}, 20: rising(0.6)}
    family = Family(tmp_path, curves, more=("0.9",))
    family.halve()
    assert family.began[-1] == [*folders([10], [0, 1], "0.9"), *folders([10], [0, 1], "1")]
    assert family.behind() == {20: "behind after epoch 4"}


@pytest.mark.parametrize(
    ("part", "epochs", "status"),
    [(0.25, 2, "pruned"), (0.5, 2, "waiting"), (1.0, 4, "waiting"), (0.5, 4, "pruned"), (None, 2, "pruned")],
)
def test_what_is_paused_before_its_part_waits(tmp_path, part, epochs, status):
    family = Family(tmp_path, {10: rising(0.5)})
    family.train(replace(family.jobs[0], part=epochs / EPOCHS, trial=0), "earlier")
    sweep = Sweep(tmp_path, [replace(family.jobs[0], trial=0, part=part)], "command")
    (state,) = sweep.states()
    assert (state.status, state.epoch) == (status, epochs)
    assert sweep.is_to_run(state) == (status == "waiting")
    index = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert index[0]["part"] == part
    alone = Sweep(tmp_path, [family.jobs[0]], "command")
    assert all(isinstance(state, State) and alone.is_to_run(state) for state in alone.states()), (
        "the whole sweep does it"
    )


# Whole.

FAMILY = ("+sweep=budget", "budget.bytes=1e9", "experiment=smoke", "tracking=none", "student=mlp",
          "student.hidden=[2],[8],[24]", "seed=0,1", "trainer.max_epochs=4", "sweep_name=family")  # fmt: skip


def outcomes(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("multirun/family/*/results.json")}


def test_it_is_killed_goes_on_and_what_is_left_is_as_trained_in_one_go(command, tmp_path, store):
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    halved = (*FAMILY, "budget.halving=true")
    env = environment(KDEXP_STORE_DIR=str(store))
    process = Program([SCRIPTS / "kdexp-train", *halved], tmp_path / "killed", env, own_session=True)
    end = time.monotonic() + 240
    while not any(run["status"] == "pruned" for run in outcomes(tmp_path / "killed").values()):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = command("kdexp-train", *halved, cwd=tmp_path / "killed")
    assert "halving       3 trials, of which the better half goes on" in done.stdout
    assert "behind after epoch 1" in done.stdout
    assert "2 others fell behind" in done.stdout
    found = outcomes(tmp_path / "killed")
    assert sorted(run["status"] for run in found.values()) == ["completed"] * 4 + ["pruned"] * 2
    tested = {name for name, run in found.items() if "test" in run.get("metrics", {})}
    assert len(tested) == 4, "two seeds and their controls of the student that is left"
    left = {word for name in tested for word in found[name]["overrides"] if word.startswith("student.hidden=")}
    command("kdexp-train", "-m", *FAMILY[2:], *left, "distillation=control,[]", cwd=tmp_path / "whole")
    whole = {run["fingerprint"]: (name, run) for name, run in outcomes(tmp_path / "whole").items()}
    assert len(whole) == 4
    for name in tested:
        other, run = whole[found[name]["fingerprint"]]
        assert found[name]["metrics"] == run["metrics"]
        assert found[name]["model"]["sha256"] == run["model"]["sha256"]
        rows, same = ((tmp_path / of / "multirun" / "family" / which / "metrics.csv").read_bytes()
                      for of, which in (("killed", name), ("whole", other)))  # fmt: skip
        assert rows == same
