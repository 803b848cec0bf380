import json
import shutil

import pytest
from scipy.stats import binomtest, ttest_rel

from kdexp.report.comparison import Comparison, order_of_choice, teachers_part
from kdexp.report.loss_statement import of_comparison
from kdexp.report.loss_statement_files import keep_again
from kdexp.report.loss_statement_text import markdown
from kdexp.report.plotly_figures import gains
from kdexp.report.runs import control_folder, find
from kdexp.report.summary_text import answer
from kdexp.report.terminal import show_comparison


def compared(folder):
    return Comparison(find([folder])[0])


def labels(comparison):
    return [setting.label for setting in comparison.groups]


def test_settings_are_named_after_what_they_differ_in(tmp_path, write_run):
    for number, (loss, temperature) in enumerate([("kd", 1.0), ("kd", 4.0), ("dkd", 1.0), ("dkd", 4.0)]):
        write_run(tmp_path / f"{number}", loss=loss, temperature=temperature, acc=0.9 - number / 100)
    comparison = compared(tmp_path)
    assert comparison.axes == ["loss", "temperature"]  # and not loss._target_, which loss tells
    assert labels(comparison) == [
        "loss=kd temperature=1",
        "loss=kd temperature=4",
        "loss=dkd temperature=1",
        "loss=dkd temperature=4",
    ]


def test_settings_with_long_values_have_short_names_that_differ(tmp_path, write_run):
    for number in (1, 2):
        loss = f"kd_with_a_temperature_for_each_sample_and_a_weight_{number}_of_ours"
        write_run(tmp_path / f"{number}", loss=loss, acc=0.9 - number / 100)
    write_run(tmp_path / "control", alpha=1.0)
    comparison = compared(tmp_path)
    assert labels(comparison) == ["control", "loss=…1…", "loss=…2…"]
    drawn = gains.gains(comparison)
    assert len(set(drawn["data"][1]["y"])) == 2


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
    (setting,) = compared(tmp_path).groups
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
    (control,) = comparison.groups
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
    assert "among 1 of 2 configurations (the rest: fewer seeds)" in answer(comparison)[0]


@pytest.fixture
def tied(tmp_path, write_run):
    """Three temperatures tied on val, of which 16 has the lowest NLL and 1 is the best on test; 64 is worse."""
    for job, (temperature, val, nll, acc) in enumerate(
        [(1.0, 0.8, 0.7, 0.95), (4.0, 0.8, 0.6, 0.9), (16.0, 0.8, 0.5, 0.85), (64.0, 0.7, 0.1, 0.99)]
    ):
        write_run(tmp_path / f"{job}", temperature=temperature, val=val, nll=nll, acc=acc)
    write_run(tmp_path / "control", alpha=1.0, val=0.6)
    return tmp_path


def test_a_tie_on_val_is_broken_by_nll_and_said(tied):
    comparison = compared(tied)
    assert labels(comparison) == ["control", "temperature=16", "temperature=4", "temperature=1", "temperature=64"]
    assert comparison.winner.label == "temperature=16"
    assert [setting.label for setting in comparison.tied] == ["temperature=4", "temperature=1"]
    said = "It is tied on val with temperature=4, temperature=1: chosen by lower val NLL (0.5 against 0.6)."
    assert said in answer(comparison)[0]


@pytest.mark.parametrize("sort", ["test/acc", "gain", "temperature", "val/nll", "val/acc"])
def test_the_order_of_the_rows_has_no_part_in_the_choice(tied, sort):
    comparison = Comparison(find([tied])[0], sort)
    assert comparison.winner.label == "temperature=16"
    assert comparison.control.label == "control"
    marked = [comparison.marked(setting) for setting in comparison.groups]
    assert [name for name in marked if "chosen" in name] == ["temperature=16 (chosen)"]


@pytest.mark.parametrize("sort", ["test/acc", "gain", "val/acc"])
def test_what_nothing_parts_is_chosen_by_the_order_on_the_command_line(tmp_path, write_run, sort):
    for job, (temperature, acc) in enumerate([(9.0, 0.7), (4.0, 0.8), (2.0, 0.9), (1.0, 0.95), (3.0, 0.96)]):
        write_run(tmp_path / f"{job}", temperature=temperature, val=0.8, nll=0.5, acc=acc)
    comparison = Comparison(find([tmp_path])[0], sort)
    assert comparison.winner.label == "temperature=9"
    said = (
        "tied on val with temperature=4, temperature=2, temperature=1 and 1 more, in val NLL too: chosen as the first"
    )
    assert said in answer(comparison)[0]
    write_run(tmp_path / "5", temperature=5.0, val=0.8, nll=0.6, acc=0.8)
    write_run(tmp_path / "6", temperature=6.0, val=0.8, nll=0.7, acc=0.8)
    said = "3 more, in val NLL with temperature=4, temperature=2, temperature=1 and 1 more: chosen as the first"
    assert said in answer(Comparison(find([tmp_path])[0], sort))[0]


def test_means_over_seeds_that_are_equal_on_paper_are_tied(tmp_path, write_run):
    for seed, (one, four) in enumerate([(0.7, 0.8), (0.8, 0.8), (0.9, 0.8)]):
        write_run(tmp_path / f"one-{seed}", temperature=1.0, seed=seed, val=one, nll=0.5)
        write_run(tmp_path / f"four-{seed}", temperature=4.0, seed=seed, val=four, nll=0.7)
    one, four = sorted(compared(tmp_path).groups, key=lambda setting: setting.axes["temperature"])
    assert one.mean("acc", "val") < four.mean("acc", "val"), "in the last bit"
    comparison = compared(tmp_path)
    assert (comparison.winner.label, [s.label for s in comparison.tied]) == ("temperature=1", ["temperature=4"])


def test_an_nll_that_is_not_known_is_not_the_lowest(tmp_path, write_run):
    write_run(tmp_path / "0", temperature=1.0, val=0.8)
    write_run(tmp_path / "1", temperature=4.0, val=0.8, nll=3.0)
    comparison = compared(tmp_path)
    assert comparison.winner.label == "temperature=4"
    assert "chosen by lower val NLL (the others have none)" in answer(comparison)[0]


def test_settings_with_fewer_seeds_stand_below_those_that_can_be_chosen(tmp_path, write_run):
    for seed in (0, 1):
        write_run(tmp_path / f"a-{seed}", temperature=1.0, seed=seed, val=0.8)
        write_run(tmp_path / f"c-{seed}", temperature=3.0, seed=seed, val=0.7)
    write_run(tmp_path / "b-0", temperature=2.0, seed=0, val=0.8)
    comparison = compared(tmp_path)
    assert labels(comparison) == ["temperature=1", "temperature=3", "temperature=2"]
    assert comparison.tied == []


def test_the_only_setting_is_not_marked(tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "control", alpha=1.0)
    comparison = compared(tmp_path)
    assert comparison.marked(comparison.winner) == comparison.winner.label


@pytest.mark.parametrize(
    ("best", "worse", "less"),
    [
        ((0.9, 5.0), (0.8, 0.1), False),
        ((0.8, 0.1), (0.9, 0.05), True),
        ((0.9, 0.1), (0.9, 0.2), False),
        ((0.9, 0.1), (0.9, None), False),
        ((0.9, 0.1), (0.9, float("nan")), False),
        ((0.1, None), (None, 0.1), False),
        ((9.0, None), (None, 0.1), True),
    ],
)
def test_the_rule_of_the_choice(best, worse, less):
    assert order_of_choice(*best, less_is_better=less) < order_of_choice(*worse, less_is_better=less)


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
    ("gains", "said"),
    [
        ([0.1, 0.11, 0.12], "alpha=0.1 temperature=4 is better than the control: +11.00 points of test accuracy "),
        ([-0.1, -0.11, -0.12], "alpha=0.1 temperature=4 is worse than the control: -11.00 points of test accuracy "),
        ([-0.1, 0.11, 0.02], "alpha=0.1 temperature=4 does not differ significantly from the control: +1.00 points"),
        ([0.1, 0.2], "+15.00 points of test accuracy; too few seeds: a paired t test needs 3."),
    ],
)
def test_the_first_sentence_is_the_answer(tmp_path, write_run, capsys, gains, said):
    for seed, gain in enumerate(gains):
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=0.8, val=0.7)
        write_run(tmp_path / f"{seed}", seed=seed, acc=0.8 + gain, val=0.75)
    show_comparison(compared(tmp_path))
    first = capsys.readouterr().out.splitlines()[0]
    assert said in first
    if len(gains) > 2:
        assert f", p = {ttest_rel(gains, [0] * 3).pvalue:.2g}, 3 seeds)." in first


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


def test_what_the_teacher_adds_to_soft_labels_is_paired_by_seed(tmp_path, write_run):
    for seed in range(6):
        for loss, acc in (("kd", 0.90), ("matched_smoothing", 0.87), ("permuted_kd", 0.88)):
            write_run(tmp_path / f"{loss}-{seed}", loss=loss, seed=seed, acc=acc + seed / 100 * (1 + (loss == "kd")))
        write_run(tmp_path / f"control-{seed}", alpha=1.0, seed=seed, acc=0.8)
    found = {(taught.label, other.label): gain.differences for taught, other, gain in teachers_part(compared(tmp_path))}
    assert found == {
        ("loss=kd", "loss=matched_smoothing"): pytest.approx([0.03 + seed / 100 for seed in range(6)]),
        ("loss=kd", "loss=permuted_kd"): pytest.approx([0.02 + seed / 100 for seed in range(6)]),
    }


def search(folder, write_run, alone, **tuned):
    """The best trial of a search, and a control whose recipe is another one."""
    budget = {
        "trials": 3,
        "settings": ["alpha", "optimizer.lr"],
        "control_trials": 3,
        "control_settings": ["optimizer.lr"],
    }
    jobs = []
    for name, acc, rate, more in (("best", 0.9, 0.1, {}), ("alone", alone, 0.2, {"alpha": 1.0})):
        key = f"{folder.name}-{name}"
        write_run(folder / name, acc=acc, optimizer={"lr": rate}, key=key, **more)
        jobs.append({"folder": name, "overrides": [], "key": key, "status": "completed", "error": None})
        jobs[-1]["tuned"] = budget | tuned
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs}))


def test_the_control_of_a_search_is_its_own_and_of_no_other(tmp_path, write_run):
    search(tmp_path / "a", write_run, alone=0.5)
    search(tmp_path / "b", write_run, alone=0.8)
    together = Comparison(find([tmp_path / "a", tmp_path / "b"])[0])
    assert sorted(group.gain.mean for group in together.distilled) == pytest.approx([0.1, 0.4])
    assert {group.trials for group in together.groups} == {3}
    points = ["alpha=0.1 optimizer.lr=0.1" if not group.is_control else "optimizer.lr=0.2" for group in together.groups]
    assert [label.endswith(f" {point}") for label, point in zip(labels(together), points, strict=True)] == [True] * 4
    (best,) = (run for run in find([tmp_path / "a"])[0] if not run.is_control)
    assert control_folder(best.results, tmp_path / "a") == tmp_path / "a" / "alone", "its recipe is another one"


def test_the_best_of_a_search_is_said_to_be_that_and_its_control_to_have_its_own_recipe(tmp_path, write_run):
    search(tmp_path, write_run, alone=0.5, trials=1)
    comparison = compared(tmp_path)
    assert answer(comparison)[0].startswith("Settings of the best of 1 trial, by val with one seed: ")
    text = markdown(of_comparison(comparison), "subject")
    assert "Its settings are the best on val of 1 trial with one seed." in text
    assert "with a recipe of its own, the best on val of 3 trials), paired t test" in text
    keep_again(tmp_path / "best")
    assert "with a recipe of its own" in (tmp_path / "best" / "loss_statement.md").read_text()


@pytest.mark.parametrize("names", [["dataset"], ["student"], ["alpha"], "optimizer.lr", [1]])
def test_what_a_sweep_json_says_of_a_search_is_checked(tmp_path, write_run, names):
    search(tmp_path, write_run, alone=0.5, control_settings=names)
    comparison = compared(tmp_path)
    assert [group.trials for group in comparison.groups] == [None, None]
    assert comparison.winner.gain is None, "controls of other recipes are no controls"
