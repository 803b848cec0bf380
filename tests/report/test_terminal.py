import json
import os
import shutil
from pathlib import Path

import pytest

from kdexp import results
from kdexp.report import terminal
from kdexp.report.comparison import Comparison
from kdexp.report.runs import find, find_control
from kdexp.report.terminal import show_comparison, show_run, show_sweep
from kdexp.terminal import Screen


def row(shown, name):
    """The cells of a row, by their columns' heads; a cell is what two spaces or more part."""
    lines = [line for line in shown.splitlines() if line.strip()]
    (found,) = [line for line in lines if line.split("  ")[1:2] == [name]]
    return [cell.strip() for cell in found.strip().split("  ") if cell.strip()]


def test_a_sweep_is_shown_with_seeds_together_and_paired_with_its_controls(sweep, capsys):
    show_sweep(sweep)
    shown = capsys.readouterr().out
    percent = "85.00 ± 7.07"  # mean and standard deviation (n - 1) of 80 and 90
    assert row(shown, "control") == ["control", "2", "85.00 ± 0.00", *[percent] * 4]
    one = row(shown, "temperature=1 (chosen)")
    assert one[1:5] == ["2", "90.00 ± 0.00", "88.00 ± 5.66", "87.00 ± 5.66"]  # val, best and last on test: of 84 and 92
    assert one[7:] == ["+3.00 ± 1.41", "too few seeds"]  # differences by seed: 4 and 2
    assert row(shown, "teacher")[1:3] == ["99.00", "99.00"]


def test_the_choice_is_made_on_val_and_not_on_test(sweep, capsys):
    show_sweep(sweep)
    shown = capsys.readouterr().out
    assert "Chosen by mean validation accuracy among 2 configurations: temperature=1, 90.00 ± 0.00 % on val." in shown
    assert "Too few seeds: a paired t test needs 3; 2 of 2 seeds gain, 0 lose." in shown


def test_three_seeds_have_an_interval_and_its_p_which_are_not_corrected_for_several_tests(sweep, write_run, capsys):
    for name, settings in {
        "control": {"alpha": 1.0, "acc": 0.85, "val": 0.85},
        "one": {"temperature": 1.0, "acc": 0.88, "val": 0.90},
        "four": {"temperature": 4.0, "acc": 0.89, "val": 0.80},
    }.items():
        write_run(sweep / f"{name}-2", seed=2, **settings)
    show_sweep(sweep)
    shown = capsys.readouterr().out
    assert "95 % t interval" in shown
    # Differences 4, 2 and 3: m = 3, s = 1, t = 3 sqrt 3, p = 1 - t / sqrt(2 + t^2) and 4.303 s / sqrt 3 = 2.484.
    assert row(shown, "temperature=1 (chosen)")[7:] == ["+3.00 ± 1.00", "+0.52 to +5.48", "0.035"]
    assert "95 % t interval over 3 seeds +0.52 to +5.48. Better: paired t test, p = 0.0351 over 3" in " ".join(
        shown.split()
    )
    assert "2 configurations are tested here, and the p values are not corrected for that." in shown


def test_a_comparison_names_the_runs_that_are_not_completed(sweep, capsys):
    show_comparison(Comparison(find([sweep])[0]))
    assert "diverged: temperature=16.0 seed=0: Diverged: the loss is not finite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"alpha": 1.0}, "nothing to choose between"), ({"status": "failed"}, "None of the 1 runs is completed")],
    ids=str,
)
def test_where_there_is_nothing_to_compare_it_is_said(tmp_path, capsys, write_run, settings, said):
    write_run(tmp_path / "0", **settings)
    show_sweep(tmp_path)
    assert said in capsys.readouterr().out


def test_a_narrow_terminal_gets_fewer_columns_and_loses_none_of_them(sweep, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "screen", lambda: Screen(width=90))
    show_sweep(sweep)
    shown = capsys.readouterr().out
    assert all(name not in shown for name in ("f1", "auc", "…"))
    for words in ("last", "85.00", "+3.00", "±"):
        assert words in shown


@pytest.mark.parametrize(("teacher", "warned"), [(0.99, False), (0.5, True)])
def test_a_teacher_that_is_worse_than_the_control_is_pointed_out(tmp_path, capsys, teacher, warned, write_run):
    write_run(tmp_path / "0", alpha=1.0, acc=0.8)
    write_run(tmp_path / "1", alpha=0.5, acc=0.8, teacher_acc=teacher)
    show_sweep(tmp_path)
    assert ("teacher is worse" in capsys.readouterr().out) == warned


def test_a_run_is_shown_with_the_control_beside_it(tmp_path, capsys, write_run):
    write_run(tmp_path / "control", alpha=1.0, seed=3, acc=0.8)
    write_run(tmp_path / "run", seed=3, acc=0.9, last=0.85)
    show_run(tmp_path / "run")
    shown = capsys.readouterr().out
    assert row(shown, "control")[1:4] == ["80.00"] * 3
    assert row(shown, "distilled")[1:4] == ["90.00", "90.00", "85.00"]
    assert f"kdexp-eval run={tmp_path / 'run'}" in shown


def damage(folder: Path, how: str, control: dict) -> None:
    """Make a run folder whose results.json is not what a run writes."""
    folder.mkdir()
    file = folder / "results.json"
    if how == "a folder":
        file.mkdir()
    elif how == "a pipe":
        os.mkfifo(file)
    elif how == "a loop":
        file.symlink_to(file)
    elif how == "huge":
        with file.open("wb") as empty:
            empty.truncate(2**40)  # it takes no room
    else:
        content = {
            "broken": "{",
            "binary": bytes(range(256)),
            "nested": "[" * 100_000,
            "of other types": json.dumps(control | {"metrics": {"test": {"best": [1]}}}),
            "of other words": json.dumps(control | {"overrides": [1]}),
        }[how]
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


DAMAGES = ("a folder", "a pipe", "a loop", "huge", "broken", "binary", "nested", "of other types", "of other words")


def test_a_damaged_neighbour_is_not_taken_for_a_control_and_is_named_in_a_line(tmp_path, write_run, capsys):
    run = write_run(tmp_path / "run", seed=1)
    control = write_run(tmp_path / "z", seed=1, alpha=1.0)
    shutil.rmtree(tmp_path / "z")
    for how in DAMAGES:
        damage(tmp_path / how, how, control)
    assert find_control(run, tmp_path) is None
    show_run(tmp_path / "run")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert {how for line in said for how in DAMAGES if f"/{how}" in line} == {*DAMAGES} - {"a loop"}  # it leads nowhere
    assert len(said) == len(DAMAGES) - 1
    found, unread = find([tmp_path])
    assert [one.folder.name for one in found] == ["run"]
    assert {how for line in unread for how in DAMAGES if f"/{how}" in line} == {*DAMAGES} - {"a folder"}  # no file


def test_a_control_is_found_by_its_fingerprint(tmp_path, write_run):
    write_run(tmp_path / "a", alpha=1.0, seed=0)
    write_run(tmp_path / "b", alpha=1.0, seed=1)
    run = write_run(tmp_path / "run", seed=1)
    assert find_control(run, tmp_path)["seed"] == 1
    assert find_control(run | {"control_fingerprint": "other"}, tmp_path) is None


@pytest.mark.parametrize(
    ("sort", "labels"),
    [
        ("val/acc", ["temperature=1", "temperature=4"]),
        ("test/acc", ["temperature=4", "temperature=1"]),
        ("gain", ["temperature=4", "temperature=1"]),
        ("temperature", ["temperature=1", "temperature=4"]),
        ("test_last/acc", ["temperature=4", "temperature=1"]),
    ],
)
def test_settings_are_sorted_as_asked_with_the_controls_first(sweep, sort, labels):
    comparison = Comparison(find([sweep])[0], sort)
    assert [setting.label for setting in comparison.groups] == ["control", *labels]


def test_sorting_by_what_no_run_has_is_refused(sweep):
    with pytest.raises(ValueError, match=r"^sort must be gain, .* got test/bleu$"):
        Comparison(find([sweep])[0], "test/bleu")


def test_the_run_of_an_earlier_kdexp_is_read(sweep):
    """One without curves, sample counts and the teacher's cost."""
    path = sweep / "one-0" / "results.json"
    old = json.loads(path.read_text())
    for key in ("curves", "samples", "epochs"):
        del old[key]
    del old["teacher"]["curves"], old["teacher"]["model"]
    path.write_text(json.dumps(old))
    assert len(Comparison(find([sweep])[0]).winner.runs) == 2


@pytest.mark.parametrize(("version", "name"), [(2, "prior_runs"), (1, "steps")], ids=["", "of an older kdexp"])
@pytest.mark.parametrize(
    ("is_first_readable", "shown_teacher"),
    [(True, "99.00"), (False, "70.00")],
    ids=["prior runs", "a prior run that is gone"],
)
def test_the_teacher_of_several_runs_is_the_one_that_taught_the_first(
    tmp_path, write_run, capsys, is_first_readable, shown_teacher, version, name
):
    folder = tmp_path / "student"
    record = write_run(folder, acc=0.6, teacher_acc=0.7)
    results.write(folder, record | {"schema_version": version, name: ["assistant"]})
    write_run(folder / name / "assistant", acc=0.7, teacher_acc=0.99)
    if is_first_readable:
        show_run(folder)
        shown = capsys.readouterr().out
        assert row(shown, "assistant")[2] == "70.00"
        assert row(shown, "teacher")[2] == shown_teacher
    else:
        shutil.rmtree(folder / name)
    show_comparison(Comparison(find([tmp_path])[0]))
    assert row(capsys.readouterr().out, "teacher")[2] == shown_teacher
