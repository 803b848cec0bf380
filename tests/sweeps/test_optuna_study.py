"""Searches: what is suggested, what is pruned, what is chosen; that nothing is lost, and test is looked at once."""

import json
import math
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from warm_programs import Program, environment

from kdexp import results
from kdexp.config.compose import compose, plain
from kdexp.experiment.run import run
from kdexp.report.comparison import Comparison
from kdexp.report.runs import command_of, control_folder, find
from kdexp.sweeps.progress import show_trials
from kdexp.sweeps.pruning import TRIAL, pruner_of
from kdexp.sweeps.sweep import Job, Sweep
from kdexp.training.fit import TrialPruned

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install kdexp[search]")
Plugins.instance()  # its search for plugins loads the class anew that ours are made of

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402

from hydra_plugins.kdexp.search import Search, distribution_of  # noqa: E402
from kdexp.sweeps.optuna_study import EpochPruner, Study, ends, typed  # noqa: E402

SPACE = {"alpha": FloatDistribution(0, 1), "temperature": FloatDistribution(1, 16, log=True)}
SCRIPTS = Path(sys.executable).parent


def study(folder: Path, space=SPACE, **more) -> Study:
    return Study(folder, space, **{"metric": "val/acc", "pruner": "median", "seed": 0} | more)


def epochs(*accuracies: float) -> list[dict[str, float]]:
    return [{"epoch": number, "val/acc": accuracy} for number, accuracy in enumerate(accuracies)]


def tell(known: Study, launch: str, *accuracies: float, nll: float = 1.0) -> None:
    (trial,) = known.ask(1, 100, launch)
    known.tell(trial, epochs(*accuracies), {"acc": max(accuracies), "nll": nll})


def parse(text: str):
    return distribution_of(OverridesParser.create().parse_override(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("alpha=interval(0,1)", FloatDistribution(0, 1)),
        ("temperature=tag(log, interval(1,16))", FloatDistribution(1, 16, log=True)),
        ("student.width=int(interval(2,9))", IntDistribution(2, 9)),
        ("student.width=tag(log, int(interval(2,64)))", IntDistribution(2, 64, log=True)),
        ("student.width=range(2,9,3)", IntDistribution(2, 8, step=3)),
        ("label_smoothing=range(0.0,0.3,0.1)", FloatDistribution(0, 0.2, step=0.1)),
        ("loss=kd,dkd", CategoricalDistribution(["kd", "dkd"])),
        ("feature_loss=choice([at,rkd],[])", CategoricalDistribution(["[at,rkd]", "[]"])),
    ],
)
def test_hydras_grammar_describes_the_space(text, values):
    found = parse(text)
    assert type(found) is type(values)
    for name, value in vars(values).items():
        own = vars(found)[name]
        assert own == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=interval(1,0)", "a must begin below its end, got a=interval(1,0)"),
        ("a=range(3,3)", "a must begin below its end, got a=range(3,3)"),
        ("a=tag(log, interval(0,1))", "a must begin above 0, and have no step but 1, to be tagged log, got a=tag"),
        ("a=tag(log, range(1,9,2))", "a must begin above 0, and have no step but 1, to be tagged log, got a=tag"),
        ("a=tag(odd, interval(0,1))", "a must be tagged log or not at all, got a=tag"),
        ("a=tag(log, choice(1,2))", "a must be at least one value, and an interval or a range if tagged, got a=tag"),
    ],
)
def test_a_wrong_space_is_said(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(text)


SETTINGS = {"max_batch_size": 1, "params": {}, "n_trials": 3, "metric": "val/acc", "pruner": "median", "seed": 0,
            "final_seeds": None}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "val/loss"}, "metric must be one of val/acc, val/precision, "),
        ({"pruner": "odd"}, "pruner must be one of median, hyperband, none, got odd"),
        ({"n_trials": 0}, "n_trials must be at least 1, got 0"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, got 0"),
        ({"n_trials": "many"}, "n_trials must be at least 1, got many"),
        ({"final_seeds": []}, "final_seeds must be null or at least one seed in [0, 2^63), got []"),
        ({"final_seeds": [0, -1]}, "final_seeds must be null or at least one seed in [0, 2^63), got [0, -1]"),
        ({"final_seeds": 3}, "final_seeds must be null or at least one seed in [0, 2^63), got 3"),
    ],
)
def test_a_wrong_setting_of_a_search_is_said(settings, message):
    search = Search(**SETTINGS | settings)
    with pytest.raises(ValueError, match=f"^{re.escape('hydra.sweeper.' + message)}"):
        search.setup(hydra_context=None, task_function=None, config=None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["alpha=0.1"], "a search needs a setting with several values, as alpha='interval(0,1)', got none"),
        (["alpha=0.1,1", "seed=0,1"], "seed must be one in a search, which would choose the luckiest; "),
    ],
)
def test_what_cannot_be_searched_is_said(given, message):
    search = Search(**SETTINGS)
    search._given = [{o.get_key_element(): o for o in OverridesParser.create().parse_overrides(given)}]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        search._space()


def test_a_value_is_typed_as_it_is_used():
    assert typed(0.123456789, SPACE["alpha"]) == "0.123457"
    assert typed(0.9999999, FloatDistribution(0, 0.9999999)) == "0.9999999", "rounded, it would be outside"
    assert typed(12, IntDistribution(1, 20)) == "12"
    assert ends(SPACE["temperature"]) == ["1.0", "16.0"]
    assert ends(CategoricalDistribution(["kd", "dkd"])) == ["kd", "dkd"]


def suggested(folder: Path, accuracies, *, reopen: bool, **more) -> list[dict]:
    folder.mkdir()
    known = study(folder, **more)
    for number, accuracy in enumerate(accuracies):
        if reopen:
            known = study(folder, **more)
        with known.worker(f"{number}"):
            tell(known, f"{number}", accuracy)
    return [dict(trial.point) for trial in known.trials()]


def test_suggestions_depend_on_the_seed_and_on_what_came_out_alone(tmp_path):
    accuracies = [random.Random(number).random() for number in range(12)]  # more than TPE's ten at random
    one = suggested(tmp_path / "one", accuracies, reopen=False)
    assert suggested(tmp_path / "again", accuracies, reopen=True) == one, "interrupted after every trial"
    assert not any(point in one for point in suggested(tmp_path / "other", accuracies[:2], reopen=False, seed=1))
    changed = suggested(tmp_path / "changed", [1 - accuracy for accuracy in accuracies], reopen=False)
    assert changed[:10] == one[:10]
    assert changed[10:] != one[10:]
    assert all(0 <= float(point["alpha"]) <= 1 <= float(point["temperature"]) <= 16 for point in one)


def test_several_workers_share_the_trials_and_take_up_what_a_dead_one_left(tmp_path):
    one, two = study(tmp_path), study(tmp_path)
    with one.worker("one"):
        (first,) = one.ask(1, 3, "one")
        with two.worker("two"):
            second, third = two.ask(9, 3, "two")
            assert {t.number for t in (first, second, third)} == {0, 1, 2}
            assert one.ask(1, 3, "one") == [], "as many as were wanted are there"
            assert one.are_others_at_it("one")
            two.give_up(second)
            two.tell(third, epochs(0.5), {"acc": 0.5, "nll": 1.0})
            assert not one.are_others_at_it("one"), "what failed is left to a later launch"
        (taken,) = one.ask(9, 3, "one")
        assert (taken.number, taken.point) == (second.number, second.point)
    assert [trial.status for trial in one.trials()] == ["waiting", "waiting", "completed"]


def test_a_study_is_of_one_space_alone(tmp_path):
    study(tmp_path)
    with pytest.raises(ValueError, match=r"^sweep_name must be of a search with the same space, got .*"):
        study(tmp_path, {"alpha": FloatDistribution(0, 0.5)})
    with pytest.raises(ValueError, match=r"^sweep_name must be of a search with the same metric, got .* val/acc$"):
        study(tmp_path, metric="val/nll")


@pytest.mark.parametrize("setting", ["+hydra.job.env_set.KDEXP_TRUST", "student._target_", "seed"])
def test_points_that_somebody_else_put_into_the_file_set_nothing_but_the_space(tmp_path, setting):
    known = study(tmp_path)
    (trial,) = known.ask(1, 100, "launch")
    known._storage.set_trial_user_attr(trial.id, "point", {"alpha": "0.5", setting: "x"})
    known.tell(trial, epochs(0.5), {"acc": 0.5, "nll": 1.0})
    for look in (known.trials, known.best):
        with pytest.raises(ValueError, match=r"^search\.db must have points of alpha, temperature, got ") as caught:
            look()
        assert str(caught.value).endswith(setting)


def test_the_best_is_chosen_by_val_and_of_equals_that_with_the_lower_nll(tmp_path, capsys):
    known = study(tmp_path)
    for accuracy, nll in [(0.5, 1.0), (0.9, 2.0), (0.9, 1.0), (0.7, 0.1)]:
        tell(known, "l", accuracy, nll=nll)
    (pruned, broken) = known.ask(2, 100, "l")
    known.tell(pruned, epochs(1.0), None)
    known.tell(broken, epochs(math.nan), {"acc": math.nan, "nll": 1.0})
    assert [trial.number for trial in known.best()] == [2, 1, 3, 0]
    show_trials(known.trials(), known.best(), "val/acc", {})
    shown = capsys.readouterr().out
    assert "trial 2 is tied on val/acc with 1: chosen by lower val NLL" in shown
    (chosen,) = [line for line in shown.splitlines() if "(chosen)" in line]
    assert chosen.split()[:2] == ["2", "0.9000"]
    assert [trial.status for trial in known.trials()[4:]] == ["pruned", "pruned"]


def test_of_trials_that_nothing_parts_the_first_is_chosen(tmp_path, capsys):
    known = study(tmp_path, metric="val/nll")
    for nll in (0.7, 0.5, 0.5):
        (trial,) = known.ask(1, 100, "l")
        known.tell(trial, [{"epoch": 0, "val/nll": nll}], {"acc": 0.9, "nll": nll})
    assert [trial.number for trial in known.best()] == [1, 2, 0]
    show_trials(known.trials(), known.best(), "val/nll", {})
    assert "trial 1 is tied on val/nll with 2: chosen by being the first" in capsys.readouterr().out


# At epochs 1 to 5 the medians of these are 0.30 0.40 0.50 0.60 0.70.
FIVE = [[0.1 * k + 0.1 * epoch for epoch in range(5)] for k in range(1, 6)]


@pytest.mark.parametrize(
    ("accuracies", "ended"),
    [
        ([0.25, 0.45, 0.1, 0.55, 0.1], 3),  # its best so far, 0.45 < 0.5; at epoch 1 it is too early
        ([0.31, 0.41, 0.51, 0.61, 0.71], None),
        ([0.1, 0.1, 0.1, 0.1, 0.1], 2),
        ([0.31, 0.41, 0.51, 0.61, 0.1], 5),
        ([0.71, 0.1, 0.1, 0.1, 0.1], None),
    ],
)
def test_the_median_pruner_ends_what_falls_behind(tmp_path, accuracies, ended):
    known = study(tmp_path)
    for curve in FIVE:
        tell(known, "l", *curve)
    (trial,) = known.ask(1, 100, "l")
    judge = EpochPruner(tmp_path, trial.id)
    said = [judge(epochs(*accuracies[:done]), 10) for done in range(1, 6)]
    first = next((done for done, reason in enumerate(said, 1) if reason), None)
    assert first == ended
    if ended:
        assert said[ended - 1].startswith(f"pruned after epoch {ended} of 10: val/acc ")


@pytest.fixture
def smoke(tmp_path, store, monkeypatch):
    """A function that runs an experiment in SEARCH/run, as a trial when it is given one's id."""
    monkeypatch.setenv("KDEXP_STORE_DIR", str(store))

    def start(trial: int | None) -> dict:
        monkeypatch.delenv(TRIAL, raising=False)
        if trial is not None:
            monkeypatch.setenv(TRIAL, str(trial))
        overrides = ["experiment=smoke", "tracking=none", "student.width=2", "alpha=0.3"]
        config = compose(overrides, output_dir=tmp_path / "run", sweep_dir=tmp_path)
        return run(config, pruner=pruner_of(config.sweep_dir))

    return start


def test_a_pruned_trial_is_no_failure_and_no_result(tmp_path, smoke):
    known = study(tmp_path)
    for _ in range(5):
        tell(known, "l", 1.0, 1.0)
    (trial,) = known.ask(1, 100, "l")
    with pytest.raises(TrialPruned, match=r"^pruned after epoch 1 of 2: val/acc 0\.\d{4}$"):
        smoke(trial.id)
    record = results.read(tmp_path / "run", "run")
    assert record["status"] == "pruned"
    assert record["error"].startswith("pruned after epoch 1 of 2: val/acc 0.")
    assert "metrics" not in record
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    with pytest.raises(TrialPruned, match="after epoch 1"):
        smoke(trial.id)  # continued, it is judged at once
    job = Job(("alpha=0.3",), "run", record["key"], 2, trial=trial.number)
    sweep = Sweep(tmp_path, [job], "kdexp-train")
    (state,) = sweep.states()
    assert (state.status, state.has_failed, state.epoch) == ("pruned", False, 1)
    assert not sweep.is_to_run(state)
    comparison = Comparison(find([tmp_path])[0])
    assert [found.status for found in comparison.runs] == ["pruned"]
    assert comparison.groups == comparison.failed == []


def test_a_trial_leaves_test_alone_until_it_is_chosen_and_is_not_trained_again_then(tmp_path, smoke):
    known = study(tmp_path)
    (trial,) = known.ask(1, 1, "l")
    record = smoke(trial.id)
    assert record["metrics"].keys() == {"val"}
    assert not (tmp_path / "run" / "figures").exists()
    assert len(known.trials()) == 1
    sweep = Sweep(tmp_path, [Job((), "run", record["key"], 2, trial=0)], "")
    assert sweep.states()[0].status == "completed"
    chosen = Sweep(tmp_path, [Job((), "run", record["key"], 2)], "")
    assert chosen.states()[0].status == "waiting"
    table = (tmp_path / "run" / "metrics.csv").read_bytes()
    weights = (tmp_path / "run" / "student.safetensors").read_bytes()
    tested = smoke(None)
    assert tested["metrics"].keys() == {"val", "test"}
    assert tested["metrics"]["val"] == record["metrics"]["val"]
    assert tested["cost"] == record["cost"]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == table
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == weights
    assert (tmp_path / "run" / "figures" / "roc.png").is_file()
    assert chosen.states()[0].status == "completed"
    assert smoke(None)["ended"] == tested["ended"], "it is complete"


def test_a_control_that_was_not_tested_is_not_compared_with(tmp_path):
    config = plain(compose(output_dir=""))
    facts = {"schema_version": 2, "config": config, "overrides": [], "seed": 0, "is_control": True,
             "control_fingerprint": "c", "status": "completed"}  # fmt: skip
    results.write(tmp_path / "run", facts | {"metrics": {"val": {}}})
    assert control_folder(facts, tmp_path) is None
    results.write(tmp_path / "run", facts | {"metrics": {"val": {}, "test": {"best": {}}}})
    assert control_folder(facts, tmp_path) == tmp_path / "run"


def test_one_job_of_a_preset_is_run_alone():
    assert command_of(["+sweep=search", "alpha=0.3"]) == "kdexp-train +sweep=search alpha=0.3 hydra.mode=RUN"
    assert command_of(["alpha=0.3"]) == "kdexp-train alpha=0.3"


SMOKE = ("+sweep=search", "experiment=smoke", "tracking=none", "student.width=2", "trainer.max_epochs=3",
         "hydra.sweeper.n_trials=4", "sweep_name=search")  # fmt: skip
ONE_RECIPE = ("optimizer.lr=0.001", "optimizer.weight_decay=0.01", "label_smoothing=0")  # which the control has, too


def start(folder: Path, store: Path, *arguments: str) -> Program:
    env = environment(KDEXP_STORE_DIR=str(store))
    return Program([SCRIPTS / "kdexp-train", *SMOKE, *ONE_RECIPE, *arguments], folder, env, own_session=True)


def wait_for(condition, seconds=240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def runs(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("multirun/search/*/results.json")}


def points(folder: Path) -> list[tuple]:
    """Number, point, outcome and epochs of every trial, as the study has them."""
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{folder}/multirun/search/search.db")
    known = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{folder}/multirun/search/search.db")
    return [(t.number, t.user_attrs["point"], t.state.name, t.value, t.intermediate_values) for t in known.trials]


def logged(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("multirun/search/*/train.log")}


def measured(folder: Path) -> set[str]:
    return {name for name, run in runs(folder).items() if "test" in run.get("metrics", {})}


def test_a_search_is_killed_and_shared_and_comes_to_the_same(command, tmp_path, store):
    done = command("kdexp-train", *SMOKE, *ONE_RECIPE)
    whole = points(tmp_path)
    assert [state for _, _, state, _, _ in whole] == ["COMPLETE"] * 4
    assert all(len(values) == 3 for *_, values in whole)
    assert len(runs(tmp_path)) == 5, "four trials and the control of the chosen one"
    assert "the best of 4 completed trials, by val/acc" in done.stdout
    chosen = measured(tmp_path)
    assert len(chosen) == 2
    assert {run["alpha"] for name, run in runs(tmp_path).items() if name in chosen} > {1.0}
    assert "4 completed before" not in done.stdout
    shown = command("kdexp-compare", "multirun/search").stdout
    assert "Settings of the best of 4 trials, by val with one seed" in " ".join(shown.split())
    index = json.loads((tmp_path / "multirun" / "search" / "sweep.json").read_text())["jobs"]
    assert {job["status"] for job in index} == {"completed"}

    (tmp_path / "killed").mkdir()
    ended: dict[str, str] = {}
    cut_off: Counter[str] = Counter()  # that were in their last epoch when they were killed
    for seconds in (random.uniform(0, 2), random.uniform(0, 2)):
        process = start(tmp_path / "killed", store)
        wait_for(lambda: any(run["status"] == "running" for run in runs(tmp_path / "killed").values()))
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        now = {name: run["ended"] for name, run in runs(tmp_path / "killed").items() if run["status"] == "completed"}
        assert ended.items() <= now.items(), "what was completed was run again"
        ended = now
        cut_off.update(
            n for n, log in logged(tmp_path / "killed").items() if "student: epoch 3/3" in log and n not in now
        )
    two = [start(tmp_path / "killed", store) for _ in range(2)]
    outputs = [process.communicate(timeout=400)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], outputs
    assert [point[:3] for point in points(tmp_path / "killed")] == [point[:3] for point in whole]
    assert {n: run["metrics"]["val"] for n, run in runs(tmp_path / "killed").items()} == {
        n: run["metrics"]["val"] for n, run in runs(tmp_path).items()
    }
    assert measured(tmp_path / "killed") == chosen
    logs = logged(tmp_path / "killed")
    assert len(logs) == 5
    for name, log in logs.items():
        # A kill may come between an epoch's line and its checkpoint.
        repeated = len(re.findall("student: epoch 3/3", log)) - 1
        assert 0 <= repeated <= cut_off[name], "each was trained once, but for an epoch that a kill cut off"


def test_an_interrupted_search_says_how_to_go_on_and_more_trials_are_added_to_it(command, tmp_path, store):
    process = start(tmp_path, store, "trainer.max_epochs=40")
    wait_for(lambda: list(tmp_path.glob("multirun/search/*/checkpoints/last.ckpt")))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "run again     kdexp-train +sweep=search" in output
    assert [state for _, _, state, _, _ in points(tmp_path)] == ["WAITING"]
    assert [run["status"] for run in runs(tmp_path).values()] == ["interrupted"]
    ((_, first, *_),) = points(tmp_path)
    command(
        "kdexp-train",
        *SMOKE,
        *ONE_RECIPE,
        "trainer.max_epochs=40",
        "hydra.sweeper.n_trials=1",
        "hydra.sweeper.final_seeds=[0,1]",
    )
    assert len(measured(tmp_path)) == 4, "the best trial and its control with two seeds"
    one = runs(tmp_path)
    command(
        "kdexp-train",
        *SMOKE,
        *ONE_RECIPE,
        "trainer.max_epochs=40",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.final_seeds=[0,1]",
    )
    assert [state for _, _, state, _, _ in points(tmp_path)] == ["COMPLETE", "COMPLETE"]
    assert points(tmp_path)[0][1] == first
    assert {name: run["ended"] for name, run in one.items()}.items() <= {
        name: run["ended"] for name, run in runs(tmp_path).items()
    }.items()


def test_the_control_is_searched_over_its_recipe_with_as_many_trials(command, tmp_path):
    few = ("hydra.sweeper.n_trials=2", "trainer.max_epochs=1", "label_smoothing=0", "student.width=2,3")
    done = command("kdexp-train", *SMOKE, *few)
    recipe = "optimizer.lr, optimizer.weight_decay"
    both = f"alpha, temperature, {recipe}, student.width"
    assert f"2 trials over {both}, then as many of the control over {recipe}" in done.stdout
    assert "the best of 2 completed trials of the control" in done.stdout
    assert f"Budget: 2 trials of the student over {both}; 2 of the control over {recipe}." in done.stdout
    found = find([tmp_path / "multirun" / "search"])[0]
    controls = [run for run in found if run.is_control]
    assert len({run.settings["optimizer.lr"] for run in controls}) == 2
    tested = Comparison([run for run in found if run.metric("acc") is not None])
    best, alone = tested.winner, tested.control
    assert [best.gain.n, best.trials, alone.trials] == [1, 2, 2]
    assert best.runs[0].settings["student.width"] == alone.runs[0].settings["student.width"], "the network is the same"
    assert alone.runs[0].metric("acc", "val") == max(run.metric("acc", "val") for run in controls)
    assert control_folder(best.runs[0].results, tmp_path / "multirun" / "search") == alone.runs[0].folder
    again = command("kdexp-train", *SMOKE, *few)
    assert again.stdout.count("job ") == 0


def test_a_wrong_search_is_said_before_any_trial(command, tmp_path):
    done = command("kdexp-train", *SMOKE, "alpha=interval(0,2)", rc=2)
    assert done.stderr == "error: alpha must be in [0, 1], got 2.0\n"
    assert not list(tmp_path.glob("multirun/*/*/results.json"))
