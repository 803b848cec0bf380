import json
import shutil

import pytest
from scipy.stats import binomtest

from kdexp.report.comparison import Comparison
from kdexp.report.runs import find
from kdexp.report.summary import answer


def compared(folder):
    return Comparison(find([folder])[0])


def labels(comparison):
    return [setting.label for setting in comparison.settings]


def test_settings_are_named_after_what_they_differ_in(tmp_path, write_run):
    for number, (loss, temperature) in enumerate([("kd", 1.0), ("kd", 4.0), ("dkd", 1.0), ("dkd", 4.0)]):
        write_run(tmp_path / f"{number}", loss=loss, temperature=temperature, acc=0.9 - number / 100)
    comparison = compared(tmp_path)
    assert comparison.axes == ["loss", "temperature"]  # and not loss._target_, which loss tells
    assert labels(comparison) == [
        "loss=kd temperature=1", "loss=kd temperature=4", "loss=dkd temperature=1", "loss=dkd temperature=4",
    ]  # fmt: skip


def test_a_setting_that_nobody_typed_is_named_where_nothing_else_tells(tmp_path, write_run):
    write_run(tmp_path / "a", optimizer={"lr": 0.1})
    write_run(tmp_path / "b", optimizer={"lr": 0.2})
    for name in "ab":
        path = tmp_path / name / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"overrides": []}))
    assert labels(compared(tmp_path)) == ["optimizer.lr=0.1", "optimizer.lr=0.2"]


def test_the_only_setting_is_named_after_the_equation(tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "control", alpha=1.0)
    assert labels(compared(tmp_path)) == ["control", "alpha=0.1 temperature=4"]


def test_what_follows_the_seed_parts_no_setting_and_another_seed_does(tmp_path, write_run):
    """dataset.subset_seed is the seed, dataset.split_seed and teacher.recipe.seed are not."""
    for seed in (0, 1):
        write_run(tmp_path / f"{seed}", seed=seed)
    (setting,) = compared(tmp_path).settings
    assert [run.seed for run in setting.runs] == [0, 1]
    path = tmp_path / "1" / "results.json"
    record = json.loads(path.read_text())
    record["config"]["dataset"]["split_seed"] = 7
    path.write_text(json.dumps(record))
    assert labels(compared(tmp_path)) == ["dataset.split_seed=0", "dataset.split_seed=7"]


def test_each_student_has_its_own_control(tmp_path, write_run):
    for student, alone, distilled in (("mlp", 0.80, 0.85), ("cnn", 0.90, 0.91)):
        write_run(tmp_path / f"{student}-control", student=student, alpha=1.0, acc=alone)
        write_run(tmp_path / student, student=student, acc=distilled)
    comparison = compared(tmp_path)
    assert labels(comparison) == ["control student=cnn", "control student=mlp", "student=cnn", "student=mlp"]
    assert [s.mean_gain for s in comparison.distilled] == pytest.approx([0.01, 0.05])
    assert (comparison.winner.label, comparison.control.label) == ("student=cnn", "control student=cnn")


def test_controls_told_of_several_temperatures_are_one_and_the_last_run_of_a_seed_counts(tmp_path, write_run):
    write_run(tmp_path / "a", alpha=1.0, temperature=1.0, acc=0.7)
    write_run(tmp_path / "b", alpha=1.0, temperature=4.0, acc=0.8)
    comparison = compared(tmp_path)
    (control,) = comparison.settings
    assert control.values("acc") == [0.8]
    assert [run.folder.name for run in comparison.repeated] == ["a"]


def test_a_copy_elsewhere_repeats_a_run(tmp_path, write_run):
    record = write_run(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    record["config"]["dataset"]["source"]["data_dir"] = record["config"]["output_dir"] = "/elsewhere"
    (tmp_path / "b" / "results.json").write_text(json.dumps(record))
    assert len(compared(tmp_path).repeated) == 1


def test_only_seeds_that_both_have_are_paired(tmp_path, write_run):
    for seed, accuracy in enumerate((0.80, 0.82, 0.84)):
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=accuracy)
    for seed, accuracy in ((1, 0.85), (2, 0.86), (7, 0.99)):
        write_run(tmp_path / f"{seed}", seed=seed, acc=accuracy)
    gain = compared(tmp_path).winner.gain
    assert gain.differences == pytest.approx((0.03, 0.02))


def test_a_setting_with_fewer_seeds_does_not_win_by_luck(tmp_path, write_run):
    for seed in (0, 1):
        write_run(tmp_path / f"a-{seed}", temperature=1.0, seed=seed, val=0.8)
    write_run(tmp_path / "b-0", temperature=2.0, seed=0, val=0.9)
    comparison = compared(tmp_path)
    assert comparison.winner.label == "temperature=1"
    assert "among 1 of 2 settings (the rest: fewer seeds)" in answer(comparison)[0]


def test_intervals_are_of_seeds_where_there_are_several_else_of_test_samples(sweep, tmp_path, write_run):
    assert compared(sweep).winner.interval("acc") is None, "two seeds"
    for seed, acc in enumerate((0.84, 0.92, 0.88)):
        write_run(tmp_path / "three" / f"{seed}", seed=seed, acc=acc)
    # m = 0.88, s = 0.04; 4.303 is the 0.975 quantile of t with 2 degrees of freedom
    half = 4.3027 * 0.04 / 3**0.5
    assert compared(tmp_path / "three").winner.interval("acc") == pytest.approx((0.88 - half, 0.88 + half), abs=1e-5)
    write_run(tmp_path / "other" / "0", acc=0.9)
    expected = binomtest(180, 200).proportion_ci(method="wilson")
    assert compared(tmp_path / "other").winner.interval("acc") == pytest.approx((expected.low, expected.high))
    assert compared(tmp_path / "other").winner.interval("f1") is None


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.02], "Too few seeds: a paired t test needs 3; 1 of 1 seeds gain, 0 lose."),
        ([0.02, 0.03], "on average over 2 seeds. Too few seeds: a paired t test needs 3; 2 of 2 seeds gain, 0 lose."),
        ([0.01, 0.02, 0.03], "95 % t interval over 3 seeds -0.48 to +4.48. Not significant: paired t test, p = 0.0742"),
        ([0.01, 0.02, 0.03, 0.04, 0.05, 0.06], "Better: paired t test, p = 0.00593 over 6 seeds; 6 of 6"),
        ([-0.01, -0.02, -0.03, -0.04, -0.05, -0.06], "Worse: paired t test, p = 0.00593 over 6 seeds; 0 of"),
        ([0.01, -0.02, 0.03, -0.04, 0.05, -0.06], "Not significant: paired t test, p = "),
        ([0.01, 0.01, 0.01], "Not tested: every seed differs by the same amount, which leaves no spread"),
    ],
)
def test_the_answer_says_how_sure_it_is(tmp_path, write_run, gains, said):
    for seed, gain in enumerate(gains):
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=0.8, val=0.7)
        write_run(tmp_path / f"{seed}", seed=seed, acc=0.8 + gain, val=0.75)
    found = " ".join(answer(compared(tmp_path)))
    assert said in found
    assert f"by {100 * sum(gains) / len(gains):+.2f} points" in found


@pytest.mark.parametrize(
    ("control", "said"), [(None, "There is no control"), (0.95, "On val the control is as good or")]
)
def test_the_answer_says_what_speaks_against_it(tmp_path, write_run, control, said):
    write_run(tmp_path / "a", temperature=1.0, acc=0.9)
    write_run(tmp_path / "b", temperature=2.0, acc=0.8)
    if control:
        write_run(tmp_path / "control", alpha=1.0, acc=control)
    assert said in " ".join(answer(compared(tmp_path)))


def test_several_data_sets_are_not_compared_without_a_word(tmp_path, write_run):
    for name in ("digits", "mnist"):
        write_run(tmp_path / name, dataset=name)
        write_run(tmp_path / f"{name}-control", dataset=name, alpha=1.0)
    assert "These are several data sets" in " ".join(answer(compared(tmp_path)))


def test_the_best_of_many_is_said_to_be_the_best_of_many(sweep):
    assert "It was selected as the best of 2 on these seeds" in answer(compared(sweep))[-1]
