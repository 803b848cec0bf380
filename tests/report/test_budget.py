"""The student to take: what budget.json says, the choice on val, the table, the figures and the sentence."""

import json
import re
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from kdexp.report.budget import Budget, Taken, key_of, read, write
from kdexp.report.budget_choice import Choice, choice_of
from kdexp.report.budget_table import columns
from kdexp.report.budget_terminal import show_budget
from kdexp.report.comparison import Comparison
from kdexp.report.elements import tabulate
from kdexp.report.plotly_figures.front import front
from kdexp.report.runs import find
from kdexp.report.sections import budget as section

# Name -> bytes, milliseconds, accuracy in % on val, of test alone and of test distilled. By val the order is wide,
# slow, middle, small; by test it is another one. `huge` is over both limits, `late` over one.
FAMILY = {
    "small": (1_000, 0.1, 90, 80, 84),
    "middle": (4_000, 0.4, 92, 85, 97),
    "wide": (9_000, 0.9, 97, 90, 92),
    "slow": (5_000, 0.95, 95, 88, 96),
    "late": (2_000, 1.5, None, None, None),
    "huge": (50_000, 9.0, None, None, None),
}
LIMITS = {"bytes": 10_000.0, "latency_ms": 1.0}


def taken(name, size, ms):
    return Taken(name, size, ms, 2 * ms, 100, size // 4, size // 2, 1, "a processor")


@pytest.fixture
def sweep(tmp_path, write_run):
    """A folder as a sweep leaves it: three seeds of each student that fits, alone and distilled."""
    students = {}
    for name, (size, ms, val, alone, distilled) in FAMILY.items():
        students[key_of({"name": name}, 1)] = taken(name, size, ms)
        if val is not None:
            for seed in range(3):
                more = {"student": name, "seed": seed, "val": (val + seed) / 100}
                write_run(tmp_path / f"{name}-{seed}", acc=(distilled + seed / 2) / 100, **more)
                write_run(tmp_path / f"{name}-alone-{seed}", acc=(alone + seed) / 100, alpha=1.0, **more)
    teachers = {"cnn": taken("cnn", 80_000, 12.0)}
    write(tmp_path, Budget(LIMITS, None, list(students), students, teachers))
    return tmp_path


def choice(folder):
    found = choice_of(Comparison(find([folder])[0]))
    assert isinstance(found, Choice)
    return found


def names(students):
    return [student.taken.name for student in students]


def test_the_best_on_val_of_those_that_fit_is_taken_whatever_test_says(sweep):
    found = choice(sweep)
    assert found.best.taken.name == "wide"
    assert found.best_of_half.taken.name == "middle", "within 5,000 bytes and 0.5 ms; slow takes 0.95"
    assert [student.left_out for student in found.students] == [
        "", "", "", "", "1 ms", "10,000 bytes and 1 ms"
    ]  # fmt: skip


def test_the_front_is_of_val_and_ends_at_the_one_to_take(sweep):
    found = choice(sweep)
    assert names(found.front("bytes")) == ["small", "middle", "slow", "wide"]
    assert names(found.front("latency_ms")) == ["small", "middle", "wide"]


def test_a_tie_on_val_leaves_the_first_in_the_order_of_choice_on_the_front(tmp_path, write_run):
    students = {key_of({"name": name}, 1): taken(name, size, 1.0) for name, size in (("a", 100), ("b", 200))}
    for name, nll in (("a", 0.5), ("b", 0.4)):
        for seed in range(2):
            write_run(tmp_path / f"{name}-{seed}", student=name, seed=seed, val=0.9, nll=nll)
    write(tmp_path, Budget({"bytes": 1000.0}, None, list(students), students, {}))
    found = choice(tmp_path)
    assert found.best.taken.name == "b"
    assert names(found.front("bytes")) == ["a", "b"]
    assert names(found.front("latency_ms")) == ["b"]


def test_the_sentence_names_both_and_agrees_with_the_table(sweep):
    found = choice(sweep)
    sentence = found.sentence()
    table = tabulate(columns(found), found.students)
    heads = [heading.name for heading in table.headings]
    rows = {row[0].text: dict(zip(heads, row, strict=True)) for row in table.rows}
    assert list(rows) == ["small", "middle (half)", "wide (take)", "slow", "late", "huge"]
    assert sentence == (
        "Within 10,000 bytes and 1 ms take wide (9,000 bytes, 0.9 ms; test accuracy distilled 92.50 ± 0.50 %, alone "
        "91.00 ± 1.00 %), chosen on val among 4 students; with half of the budget take middle (4,000 bytes, 0.4 ms; "
        "test accuracy distilled 97.50 ± 0.50 %, alone 86.00 ± 1.00 %)."
    )
    for name in ("wide (take)", "middle (half)"):
        assert f"distilled {rows[name]['acc, distilled'].text} %, alone {rows[name]['acc, alone'].text} %" in sentence
    assert rows["wide (take)"]["gain"].text == "+1.50 ± 0.50"
    assert rows["wide (take)"]["val acc"].value == pytest.approx(0.98)
    assert rows["late"]["acc, distilled"].text == ""
    assert rows["late"]["front"].text == "over 1 ms"
    assert rows["slow"]["front"].text == "bytes"


def test_what_fell_behind_is_not_taken_and_both_say_so(sweep):
    known = read(sweep)
    keys = {student.name: key for key, student in known.students.items()}
    behind = {keys["wide"]: "behind after epoch 3", keys["small"]: "diverged"}
    write(sweep, replace(known, behind=behind))
    found = choice(sweep)
    assert found.best.taken.name == "slow"
    assert "take slow (" in found.sentence()
    assert ", chosen on val among 2 students, after 2 others fell behind; with half" in found.sentence()
    assert names(found.front("bytes")) == ["middle", "slow"]
    table = tabulate(columns(found), found.students)
    assert {row[0].text: row[-1].text for row in table.rows} == {
        "small": "diverged",
        "middle (half)": "bytes, latency",
        "wide": "behind after epoch 3",
        "slow (take)": "bytes, latency",
        "late": "over 1 ms",
        "huge": "over 10,000 bytes and 1 ms",
    }
    write(sweep, replace(known, behind=behind | {keys["middle"]: "behind after epoch 3"}))
    assert ", chosen on val among 1 student, after 3 others fell behind; " in choice(sweep).sentence()


@pytest.mark.parametrize(
    ("limits", "end"),
    [
        ({"latency_ms": 0.15}, "take small"),
        ({"bytes": 1_500.0}, "none of the family fits half of the budget."),
        ({"bytes": 100_000.0}, "it fits half of the budget, too."),
        ({"bytes": 1.0}, "No student within 1 bytes has a completed distilled run: there is none to take yet."),
    ],
)
def test_the_sentence_says_what_of_half_of_the_budget_and_of_none(sweep, limits, end):
    known = read(sweep)
    write(sweep, Budget(limits, None, known.family, known.students, known.teachers))
    assert end in choice(sweep).sentence()


def test_students_with_fewer_seeds_are_not_chosen_and_the_sentence_says_so(sweep):
    (sweep / "wide-2" / "results.json").unlink()
    found = choice(sweep)
    assert found.best.taken.name == "slow"
    assert "chosen on val among 3 of 4 (the rest: fewer seeds); with half" in found.sentence()


def test_why_a_student_is_left_out_is_said_with_what_was_measured(sweep):
    known = read(sweep)
    found = {student.name: known.reasons(student) for student in known.students.values()}
    assert found == dict.fromkeys(FAMILY, "") | {"late": "1.5 > 1 ms", "huge": "50,000 > 10,000 bytes, 9 > 1 ms"}


def test_a_narrower_budget_leaves_out_what_is_trained_already(sweep):
    known = read(sweep)
    write(sweep, Budget({"bytes": 4_500.0}, None, known.family, known.students, known.teachers))
    found = choice(sweep)
    assert found.best.taken.name == "middle"
    drawn = {name for trace in front(found, "bytes")["data"] for name in trace.get("text", [])}
    assert drawn == {"small", "middle", "cnn"}


def test_the_figure_has_teacher_control_students_the_line_and_the_budget(sweep):
    found = choice(sweep)
    for unit in ("bytes", "latency_ms"):
        plot = front(found, unit)
        go.Figure(plot)  # Plotly's schema
        traces = {trace["name"].partition(":")[0]: trace for trace in plot["data"]}
        assert traces.keys() == {
            "budget", "front by val", "distilled", "control", "half of the budget", "chosen", "teacher"
        }  # fmt: skip
        at = {name: dict(zip(trace["x"], trace["y"], strict=True)) for name, trace in traces.items()}
        table = {row[0].text.partition(" (")[0]: row for row in tabulate(columns(found), found.students).rows}
        shown = at["distilled"] | at["half of the budget"] | at["chosen"]
        wanted = {s.taken.of(unit): 100 * table[s.taken.name][7].value for s in found.students if not s.left_out}
        assert shown == pytest.approx(wanted)
        assert set(traces["budget"]["x"]) == {LIMITS[unit]}
        assert list(at["front by val"]) == [student.taken.of(unit) for student in found.front(unit)]
        assert all(bar for bar in traces["control"]["error_y"]["array"])
        assert traces["teacher"]["y"] == [99.0]


def test_the_page_has_a_section_of_it(sweep):
    (found,) = section.sections(Comparison(find([sweep])[0]))
    assert found.lead.startswith("Within 10,000 bytes and 1 ms take wide (")
    assert len(found.figures[""]) == 2
    assert len(found.table.rows) == len(FAMILY)


def test_other_sweeps_have_none(tmp_path, write_run):
    write_run(tmp_path / "a" / "one")
    assert choice_of(Comparison(find([tmp_path])[0])) is None
    assert not [*section.sections(Comparison(find([tmp_path])[0]))]


def test_the_terminal_ends_in_the_sentence(sweep, capsys):
    show_budget(sweep, {path.name for path in sweep.iterdir() if path.is_dir()})
    out = capsys.readouterr().out
    assert out.rstrip().endswith(choice(sweep).sentence())
    assert "1 thread of a processor, measured once, of untrained networks." in out
    assert re.search(r"huge +50,000 +9 .* over 10,000 bytes and 1 ms", out)
    assert (sweep / "budget.png").is_file()


def test_what_is_reported_under_an_axis_is_of_that_axis(sweep):
    known = read(sweep)
    write(sweep, Budget(LIMITS, "attacks", known.family, known.students, known.teachers))
    found = choice(sweep)
    rows = [
        {"model": role, "axis": axis, "name": "x", "level": level, "acc": value}
        for axis, role, level, value in [
            ("attacks", "student", 1, 0.5),
            ("attacks", "student", 2, 0.3),
            ("attacks", "control", 1, 0.2),
            ("clean", "student", 0, 0.9),
            ("corruptions_lite", "student", 1, 0.6),
        ]
    ]
    found.comparison.reports = {run.folder: {"conditions": rows} for run in found.best.distilled.runs}
    assert found.reached(found.best, "student", "attacks").value == pytest.approx(0.4)
    assert found.reached(found.best, "control", "attacks").value == pytest.approx(0.2)
    assert found.reached(found.best, "student", "corruptions").value == pytest.approx(0.6)
    assert found.reached(found.best_of_half, "student", "attacks") is None
    plot = front(found, "bytes", "attacks")
    assert {trace["name"]: trace["y"] for trace in plot["data"] if trace["mode"] == "markers"} == {
        "control": [pytest.approx(20)],
        "chosen": [pytest.approx(40)],
    }
    assert plot["layout"]["yaxis"]["title"]["text"] == "accuracy under attacks, %"
    heads = [column.name for column in columns(found)]
    assert heads[-3:-1] == ["attacks, alone", "attacks, distilled"]


@pytest.mark.parametrize(
    "broken",
    [
        "{", "[]", "{}", '{"limits": {}, "robustness": null, "family": ["x"], "students": {}, "teachers": {}}',
        '{"limits": {"price": 1}, "robustness": null, "family": [], "students": {}, "teachers": {}}',
        '{"limits": {}, "robustness": null, "family": [], "students": {"a": {"name": 1}}, "teachers": {}}',
        '{"limits": {}, "robustness": null, "family": [], "students": {"a": 1}, "teachers": {}}',
        '{"limits": {}, "robustness": null, "family": [], "students": {"a": {"name": "a", "bytes": 9, '
        '"latency_ms": NaN, "p95_ms": 1, "calls": 1, "parameters": 1, "macs": 1, "threads": 1, "processor": "p"}}, '
        '"teachers": {}}',
        '{"limits": {}, "robustness": null, "family": [], "students": {}, "teachers": {}, "behind": {"x": "how"}}',
        '{"limits": {"bytes": "1"}, "robustness": null, "family": [], "students": {}, "teachers": {}}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(sweep, broken):
    (sweep / "budget.json").write_text(broken)
    with pytest.raises(ValueError, match=r"budget.json must be what \+sweep=budget has measured: [^\n]+$"):
        read(sweep)
    assert choice_of(Comparison(find([sweep])[0])) is None


def test_what_is_written_is_read(sweep):
    before = read(sweep)
    write(sweep, before)
    assert read(sweep) == before
    assert json.loads((sweep / "budget.json").read_text())["schema_version"] == 1
