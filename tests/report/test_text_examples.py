"""Texts that runs keep, and what a comparison shows of them."""

import json

import pytest

from kdexp.report import page, text_examples
from kdexp.report.comparison import Comparison
from kdexp.report.runs import find
from kdexp.report.sections import texts as section
from kdexp.report.text_examples import FILE, TextExample

HOSTILE = "<script>alert(1)</script> & a \u00e9 text"


def examples(*networks, wrong=(), texts=("one", HOSTILE, "three")):
    """Of class 1 all; where it is wrong a network says 0."""
    return [
        TextExample(10 + row, text, 1, {name: int((name, row) not in wrong) for name in networks})
        for row, text in enumerate(texts)
    ]


def test_what_is_written_is_read(tmp_path):
    kept = examples("teacher", "student", wrong=[("student", 1)])
    text_examples.write(kept, tmp_path)
    assert text_examples.read(tmp_path, 2) == kept
    assert text_examples.read(tmp_path / "nowhere", 2) == []


def columns(**changed):
    found = {"sample": [1], "text": ["x"], "truth": [0], "student": [1], "teacher": [1]} | changed
    return json.dumps({name: column for name, column in found.items() if column is not None}).encode()


DAMAGED = {
    "no JSON": (b"{", "Expecting"),
    "no UTF-8": (b'"\xff"', "utf-8"),
    "a list": (b"[]", "it must be lists by name"),
    "deep": (b"[" * 100_000, "recursion"),
    "nothing in it": (columns(sample=[], text=[], truth=[], student=[], teacher=[]), "sample must be a list"),
    "no truth": (columns(truth=None), "truth must be a list"),
    "too few": (columns(student=[]), "student must be a list, as long as all others"),
    "too many": (columns(sample=[1] * 501), "of 1 to 500"),
    "no text": (columns(text=[1]), "text must be texts of at most 400 characters"),
    "a long text": (columns(text=["x" * 401]), "text must be texts of at most 400 characters"),
    "no number": (columns(truth=[True]), "truth must be whole numbers from 0"),
    "a missing prediction": (columns(student=[-1]), "student must be whole numbers from 0"),
    "a class too many": (columns(teacher=[2]), r"teacher must be in 0..1, got 2"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(tmp_path, name):
    content, message = DAMAGED[name]
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        text_examples.read(tmp_path, 2)
    assert str(raised.value).startswith(f"{tmp_path / FILE} must hold example texts of a run: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_too_large_or_a_link_that_leads_out_is_not_read(tmp_path):
    (tmp_path / FILE).write_bytes(b" " * (8 * 2**20 + 1))
    with pytest.raises(ValueError, match="it has 8388609 bytes"):
        text_examples.read(tmp_path, 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).symlink_to(tmp_path / FILE)
    with pytest.raises(ValueError, match="which is outside"):
        text_examples.read(tmp_path / "run", 2)


@pytest.fixture
def folders(tmp_path, write_run):
    """A control that is wrong on the first text, and a student with its teacher that are wrong on others."""
    made = {}
    for name, alpha, networks, wrong in (
        ("control", 1.0, ("student",), [("student", 0)]),
        ("student", 0.5, ("teacher", "student"), [("teacher", 2), ("student", 1), ("student", 2)]),
    ):
        made[name] = tmp_path / name
        write_run(made[name], alpha=alpha, data={"classes": ["no", "<b>yes</b>"]}, classes=2)
        text_examples.write(examples(*networks, wrong=wrong), made[name])
    return made


def shown(folder):
    return list(section.sections(Comparison(find([folder])[0])))


def cells(found):
    return [[cell.text for cell in row] for row in found.table.rows]


def test_texts_on_which_the_networks_disagree_stand_in_a_table(folders, tmp_path):
    (found,) = shown(tmp_path)
    yes, no = "<b>yes</b>", "✗ no"
    assert [heading.name for heading in found.table.headings] == [
        "test text", "text", "truth", "teacher", "control", "student",
    ]  # fmt: skip
    assert cells(found) == [
        ["10", "one", yes, yes, no, yes],
        ["11", HOSTILE, yes, yes, yes, no],
        ["12", "three", yes, no, yes, no],
    ]
    assert "classify 3 of 3 test texts differently" in found.lead
    assert "seed 0: the student alone is right on 1, the control alone on 2" in found.lead


def test_the_page_escapes_what_stands_in_texts_and_classes(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_packed_plotly", str)
    page.write_page(Comparison(find([tmp_path])[0]), tmp_path / "report.html", source=["here"])
    html = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; a \u00e9 text" in html
    assert "<script>alert(1)" not in html
    assert "<b>yes" not in html


def test_many_are_shown_evenly_spaced_and_none_that_all_agree_on(folders, tmp_path):
    many = [str(number) for number in range(100)]
    wrong = [("student", number) for number in range(0, 100, 2)]
    text_examples.write(examples("student", texts=many), folders["control"])
    text_examples.write(examples("teacher", "student", texts=many, wrong=wrong), folders["student"])
    (found,) = shown(tmp_path)
    texts = [int(row[1]) for row in cells(found)]
    assert len(texts) == section.SHOWN
    assert all(number % 2 == 0 for number in texts)
    assert texts == sorted(texts)
    assert texts[-1] > 80
    assert "50 of 100" in found.lead


def test_a_control_of_other_texts_is_not_put_beside(folders, tmp_path):
    text_examples.write(examples("student", texts=("another",)), folders["control"])
    (found,) = shown(tmp_path)
    assert [heading.name for heading in found.table.headings][3:] == ["teacher", "student"]
    assert "alone" not in found.lead


def test_damaged_files_are_named_and_runs_without_texts_have_no_such_section(folders, tmp_path):
    for folder in folders.values():
        (folder / FILE).write_bytes(b"x")
    (found,) = shown(tmp_path)
    assert found.table is None
    assert len(found.lead.split("\n")) == 3
    for folder in folders.values():
        (folder / FILE).unlink()
    assert shown(tmp_path) == []
