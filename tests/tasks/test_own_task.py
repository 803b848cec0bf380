"""A task of a user's own: one file and one yaml outside kdexp, as the documentation shows them."""

import json
import re
from pathlib import Path

import pytest

from kdexp.config.compose import compose
from kdexp.experiment.check import check

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
TASK, DATASET = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
(COMMAND,) = re.findall(r"^    PYTHONPATH=. KDEXP_TRUST=my_regression (kdexp-train .*)$", TEXT, re.MULTILINE)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "my_regression.py").write_text(CODE)
    for name, text in (("task/regression", TASK), ("dataset/line", DATASET)):
        file = tmp_path / "my_conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path


def test_the_task_of_the_documentation_is_distilled_and_compared(own, command):
    few = ("trainer.max_epochs=6", "teacher.recipe.max_epochs=20", "optimizer.lr=0.01", "tracking=none")
    sweep = ("-m", "alpha=1,0.5", "sweep_name=own", *few)
    done = command(*COMMAND.split(), *sweep, PYTHONPATH=str(own), KDEXP_TRUST="my_regression")
    runs = [json.loads(path.read_text()) for path in sorted(own.glob("multirun/own/*/results.json"))]
    assert [run["status"] for run in runs] == ["completed"] * 2
    assert {run["measure"] for run in runs} == {"r2"}
    names: dict = {}
    exec(CODE, names)
    variance = float(names["load"]().test_target.var())
    for run in runs:
        test = run["metrics"]["test"]["best"]
        assert test["r2"] > 0.3, "a mean has 0"
        assert test["mse"] < 0.7 * variance
        assert "acc" not in test
        assert run["epochs"]["monitor"] == "val/loss"
    assert max(run["teacher"]["test"]["r2"] for run in runs if run.get("teacher")) > 0.7
    assert "r2" in done.stdout
    assert "accuracy" not in done.stdout
    assert (own / "multirun" / "own" / "report.html").is_file()


def test_what_a_task_does_not_support_is_one_line(own, command):
    words = (*COMMAND.split(), "robustness=quick", "tracking=none")
    done = command(*words, rc=2, PYTHONPATH=str(own), KDEXP_TRUST="my_regression")
    assert re.search(r"^error: robustness must be null for task=regression, got ", done.stderr, re.MULTILINE), done


def test_the_doctor_leaves_out_what_is_of_classes(own, command):
    _, *words = COMMAND.split()
    done = command(
        "kdexp-doctor", *words, "teacher.recipe.max_epochs=2", PYTHONPATH=str(own), KDEXP_TRUST="my_regression"
    )
    assert "classes in train" not in done.stdout
    assert "hard term" in done.stdout


def test_a_metric_that_cannot_choose_the_best_epoch_is_one_line(own, monkeypatch):
    code = CODE.replace('monitor = "val/loss"', 'monitor = "val/r2"')
    (own / "other_regression.py").write_text(code)
    monkeypatch.syspath_prepend(own)
    monkeypatch.setenv("KDEXP_TRUST", "other_regression")
    config = compose(["experiment=smoke"], output_dir=own)
    config.task = {"_target_": "other_regression.Regression"}
    with pytest.raises(ValueError, match=r"^task.monitor must be one of val/acc, .*, got val/r2$"):
        check(config)
