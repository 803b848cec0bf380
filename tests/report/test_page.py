"""The page's content, without a browser; test_page_in_browser.py opens it."""

import csv
import json
import pkgutil
import re
from html.parser import HTMLParser
from importlib import import_module

import plotly.graph_objects as go
import pytest

from kdexp.report import page, sections
from kdexp.report.artifacts import write
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.roc import roc_of_classes
from kdexp.report.runs import find
from kdexp.report.statistics import wilson


class Texts(HTMLParser):
    """What stands in the page outside of scripts and styles, and its tags."""

    def __init__(self):
        super().__init__()
        self.texts, self.tags, self._inside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside and data.strip():
            self.texts.append(" ".join(data.split()))


def written(folder, out=None):
    comparison = Comparison(find([folder])[0])
    path = (out or folder) / "report.html"
    page.write_page(comparison, path, source=[str(folder)])
    html = path.read_text()
    found = Texts()
    found.feed(html)
    plots = json.loads(re.search(r'<script type="application/json" id="plots">(.*?)</script>', html, re.DOTALL)[1])
    for plot in plots:
        go.Figure(plot)  # plotly's own schema: an unknown key or value raises
    return html, found, plots


@pytest.fixture(scope="module")
def small_plotly():
    """The page without the four megabytes of plotly, which only a browser needs."""
    patch = pytest.MonkeyPatch()
    patch.setattr(page, "_packed_plotly", str)
    yield
    patch.undo()


pytestmark = pytest.mark.usefixtures("small_plotly")


def test_the_first_screen_says_which_by_how_much_and_whether_it_is_real(sweep):
    _, found, _ = written(sweep)
    text = " ".join(found.texts)
    for words in (
        "temperature = 1",
        "+3.00 points on test",
        "Is it statistically significant?",
        "Too few seeds",
        "a paired t test needs 3",
    ):
        assert words in text
    # teacher 99, control 85, student 88
    assert "21 % of the way to the teacher's 99.00 %" in text


def test_every_section_of_a_sweep_is_there_and_linked(sweep):
    _, found, _ = written(sweep)
    sections = [attributes["id"] for tag, attributes in found.tags if tag == "section"]
    assert sections == [
        "answer",
        "loss-statement",
        "errors",
        "settings",
        "parallel",
        "learning",
        "roc",
        "confusion",
        "cost",
        "runs",
        "failed",
        "method",
    ]
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert links == [f"#{name}" for name in sections[1:]]


def test_the_page_has_every_section_there_is():
    modules = [module.name for module in pkgutil.iter_modules(sections.__path__)]
    assert sorted(page.ORDER) == modules


@pytest.mark.parametrize("name", page.ORDER)
def test_a_section_that_has_nothing_to_show_is_left_out(name):
    made = list(import_module(f"{sections.__name__}.{name}").sections(Comparison([])))
    assert [section.name for section in made] == (["runs"] if name == "runs" else [])


def test_nothing_is_fetched(sweep):
    html, found, _ = written(sweep)
    assert not [attributes for _, attributes in found.tags if attributes.get("src")]
    assert {attributes["href"] for _, attributes in found.tags if attributes.get("href", "#")[0] != "#"} == {"data:,"}
    assert not re.findall(r"@import|url\(", html)


def test_a_grid_of_alpha_and_temperature_is_three_heat_maps(tmp_path, write_run):
    for number, (alpha, temperature) in enumerate([(0.1, 1.0), (0.1, 16.0), (0.5, 1.0), (0.5, 16.0)]):
        write_run(tmp_path / f"{number}", alpha=alpha, temperature=temperature, acc=0.80 + number / 100, val=0.7)
    write_run(tmp_path / "control", alpha=1.0, acc=0.81)
    _, _, plots = written(tmp_path)
    val, test, gain = (p for p in plots if p["data"][0]["type"] == "heatmap" and p["data"][0]["y"] == ["0.1", "0.5"])
    assert gain["data"][0]["x"] == ["1", "16"]  # by number, not by letter
    assert val["data"][0]["z"] == [[70, 70], [70, 70]]
    assert test["data"][0]["z"] == [pytest.approx([80, 81]), pytest.approx([82, 83])]
    assert gain["data"][0]["z"] == [pytest.approx([-1, 0]), pytest.approx([1, 2])]
    assert gain["data"][0]["zmin"] == -gain["data"][0]["zmax"]  # white is no difference


def test_the_chosen_of_several_that_are_tied_is_the_uppermost_and_marked_everywhere(tmp_path, write_run):
    # The chosen one comes last on the command line.
    for number, (alpha, temperature) in enumerate([(0.1, 1.0), (0.1, 4.0), (0.5, 1.0), (0.5, 4.0)]):
        acc = 0.8 - number / 100
        write_run(tmp_path / f"{number}", alpha=alpha, temperature=temperature, acc=acc, val=0.7, nll=2 - number / 10)
    write_run(tmp_path / "control", alpha=1.0, acc=0.7, val=0.6)
    _, found, plots = written(tmp_path)
    name = "alpha=0.5 temperature=4"
    text = " ".join(found.texts)
    others = "alpha=0.5 temperature=1, alpha=0.1 temperature=4, alpha=0.1 temperature=1"
    assert text.count(f"tied on val with {others}: chosen by lower val NLL (1.7 against 1.8)") == 2  # card and answer
    assert found.texts.count(f"{name} (chosen)") == 1  # in the table
    gains = next(p for p in plots if p["layout"]["xaxis"].get("title", {}).get("text") == "gain on test, points")
    means = gains["data"][1]
    assert means["y"][-1].replace("<br>", " ") == f"{name} (chosen)"  # Plotly begins at the bottom
    assert [color == "#0072b2" for color in means["marker"]["color"]] == [False, False, False, True]
    heat = next(p for p in plots if p["data"][0]["type"] == "heatmap" and p["data"][0]["y"] == ["0.1", "0.5"])
    (outlined,) = heat["layout"]["shapes"]
    assert (outlined["x0"], outlined["y0"]) == (0.5, 0.5)
    assert heat["data"][0]["customdata"] == [[[1, ""], [1, ""]], [[1, ""], [1, "chosen"]]]
    lines = next(p["data"] for p in plots if p["data"][0].get("connectgaps"))
    assert [line["text"] for line in lines if line["line"]["width"] > 2] == [f"{name} (chosen)"]
    write(Comparison(find([tmp_path])[0]), tmp_path, source=[])
    with (tmp_path / "compare.csv").open(newline="") as file:
        chosen = {row["folder"].rpartition("/")[2]: row["chosen"] for row in csv.DictReader(file)}
    assert chosen == {"0": "False", "1": "False", "2": "False", "3": "True", "control": "False"}


def test_a_third_axis_is_chosen_from_and_the_winners_is_shown_first(tmp_path, write_run):
    for number in range(8):
        loss, alpha, temperature = ("kd", "dkd")[number // 4], (0.1, 0.5)[number // 2 % 2], (1.0, 4.0)[number % 2]
        write_run(tmp_path / f"{number}", loss=loss, alpha=alpha, temperature=temperature, acc=0.8 + number / 100)
    _, found, _ = written(tmp_path)
    assert [text for text in found.texts if text in ("loss=kd", "loss=dkd")] == ["loss=dkd", "loss=kd"]


def test_the_bars_have_the_intervals_of_what_they_show(sweep, tmp_path, write_run):
    _, _, plots = written(sweep)
    best = next(trace for trace in plots[0]["data"] if trace["name"].startswith("best") and "error_x" in trace)
    chosen, _, teacher = range(3)
    assert best["x"] == pytest.approx([12, 15, 1])
    assert best["error_x"]["array"][chosen] is None, "two seeds have no interval"
    low, high = wilson(0.99, 200)
    assert best["error_x"]["array"][teacher] == pytest.approx(100 * (0.99 - low))
    assert best["error_x"]["arrayminus"][teacher] == pytest.approx(100 * (high - 0.99))
    for seed, acc in enumerate((0.84, 0.92, 0.88)):
        write_run(tmp_path / "three" / f"{seed}", seed=seed, acc=acc)
    _, _, plots = written(tmp_path / "three")
    best = next(trace for trace in plots[0]["data"] if trace["name"].startswith("best") and "error_x" in trace)
    assert best["error_x"]["array"][chosen] == pytest.approx(4.3027 * 4 / 3**0.5, abs=1e-3)


def test_learning_curves_are_means_over_seeds(sweep):
    _, _, plots = written(sweep)
    (curves,) = [p for p in plots if p["layout"]["yaxis"].get("title", {}).get("text") == "accuracy on val, %"]
    (chosen,) = [trace for trace in curves["data"] if trace.get("name") == "temperature=1"]
    assert chosen["y"] == pytest.approx([88 * 0.8, 88 * 0.9, 88])


@pytest.mark.parametrize("classes", [2, 10, 21, 101])
def test_curves_and_matrices_are_drawn_as_far_as_they_are_kept(tmp_path, write_run, classes):
    write_run(tmp_path / "a", classes=classes)
    write_run(tmp_path / "control", alpha=1.0, classes=classes)
    _, found, plots = written(tmp_path)
    matrices = [p for p in plots if p["data"][0]["type"] == "heatmap"]
    assert len(matrices) == (3 if classes <= 100 else 0)
    assert ("of more than 100 classes" in " ".join(found.texts)) == (classes > 100)
    roc = [p for p in plots if p["layout"]["xaxis"].get("title", {}).get("text") == "false positive rate"]
    assert [len(p["data"]) for p in roc] == ([3, classes] if classes <= 20 else [3])
    assert ("up to 20 classes" in " ".join(found.texts)) == (classes > 20)


def test_classes_are_those_of_the_chosen_student_whatever_its_label_begins_with(tmp_path, write_run):
    for name, teacher, acc in (("a", "cnn", 0.9), ("b", "mlp", 0.7)):
        write_run(tmp_path / name, teacher=teacher, acc=acc)
    write_run(tmp_path / "control", alpha=1.0, acc=0.5)
    comparison = Comparison(find([tmp_path])[0])
    assert comparison.winner.label == "teacher=cnn"
    names = [trace["name"] for trace in roc_of_classes(comparison, comparison.class_names)["data"]]
    assert names == ["0  0.9500", "1  0.9500", "2  0.9500"]  # the control's areas are 0.75


def test_runs_of_an_earlier_kdexp_lack_figures_and_the_page_says_so(tmp_path, write_run):
    write_run(tmp_path / "a")
    path = tmp_path / "a" / "results.json"
    record = json.loads(path.read_text())
    for key in ("curves", "samples", "cost", "model", "teacher", "epochs"):
        del record[key]
    path.write_text(json.dumps(record))
    (tmp_path / "a" / "metrics.csv").unlink()
    _, found, _ = written(tmp_path)
    text = " ".join(found.texts)
    for words in ("keep no ROC curves", "keep no confusion matrix", "No metrics.csv was found"):
        assert words in text


def test_when_everything_failed_the_page_says_why(tmp_path, write_run):
    write_run(tmp_path / "0", status="failed")
    (tmp_path / "0" / "train.log").write_text("Traceback: <no> & nothing\n")
    write_run(tmp_path / "1", status="running")
    _, found, plots = written(tmp_path)
    text = " ".join(found.texts)
    assert plots == []
    assert "None of the 2 runs is completed" in text
    assert "Diverged: the loss is not finite" in text
    assert "Traceback: <no> & nothing" in text
    assert "kdexp-train seed=0" in text


def test_two_hundred_runs_make_figures_of_bounded_size(tmp_path, write_run):
    for number in range(200):
        write_run(tmp_path / f"{number}", temperature=1.0 + number // 2, seed=number % 2, acc=0.5 + number / 500)
    html, found, plots = written(tmp_path)
    assert sum(tag == "tr" for tag, _ in found.tags) == 1 + 100 + 1 + 200  # the settings' and the runs', and two heads
    assert len(html) < 1_000_000
    assert max(plot["layout"]["height"] for plot in plots) < 1300


def test_names_from_outside_are_text_and_end_no_element(tmp_path, write_run):
    evil = "</script><script>alert(1)</script>"
    for number, name in enumerate((evil, "plain")):
        write_run(tmp_path / f"{number}", note=name)
    html, found, _ = written(tmp_path)
    assert evil not in html
    assert any(evil in text for text in found.texts)
