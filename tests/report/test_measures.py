"""Runs that are compared by another metric than accuracy: each word, column and number is of that metric."""

import json
import pkgutil
import re
from importlib import import_module

import matplotlib
import pytest
from conditions import compared, few_data, wrong_labels

from kdexp import results
from kdexp.experiment.run_tracking import final
from kdexp.report import glossary, page, png_figures, sections, terminal
from kdexp.report.artifacts import write
from kdexp.report.comparison import Comparison
from kdexp.report.png_figures import robustness, training_curves
from kdexp.report.robustness import over_seeds
from kdexp.report.robustness_terminal import show, show_sweep
from kdexp.report.runs import find
from kdexp.report.summary_text import answer, headline
from kdexp.terminal import Screen

NAMES = {"dice": "Dice", "miou": "mean IoU"}
OTHERS = ("acc", "miou", "dice", "image_dice", "sensitivity", "specificity", "precision", "recall", "f1", "auc", "ece")
ACCURACY = re.compile(r"\bacc\b|accurac", re.IGNORECASE)


def of_masks(folder, measure, acc=0.5, dataset=None):
    """Make runs of classification, and their robustness reports, those of a segmentation.

    Args:
        folder: in which they lie.
        measure: what has the values that accuracy had.
        acc: pixel accuracy of all networks everywhere.
        dataset: the name of theirs; as it was unless given.
    """

    def measured(values):
        others = {name: 0.3 + place / 1000 for place, name in enumerate(OTHERS)}
        return {**others, "acc": acc, measure: values["acc"], "nll": values.get("nll", 0.5)}

    for path in folder.rglob("results.json"):
        record = json.loads(path.read_text())
        record["measure"] = measure
        record["config"]["task"] = {"_target_": "kdexp.tasks.segmentation.Segmentation"}
        record["choices"]["dataset"] = dataset or record["choices"]["dataset"]
        of = [record["metrics"][split] for split in ("val", "test")] if "metrics" in record else []
        for node in [*of, *([record["teacher"]] if "teacher" in record else [])]:
            node |= {key: measured(node[key]) for key in ("best", "last", "val", "test") if "acc" in node.get(key, {})}
        path.write_text(json.dumps(record))
        table = path.parent / "metrics.csv"
        head, *rows = table.read_text().splitlines()
        head = f"{head.replace('val/acc', f'val/{measure}')},val/acc"
        table.write_text("\n".join([head, *(f"{row},{acc}" for row in rows)]))
    for path in folder.rglob("robustness.json"):
        report = json.loads(path.read_text())
        report["measure"] = measure
        for row in report["conditions"]:
            row |= {measure: row["acc"], "acc": acc}
        renamed = {"acc": measure, "mean_acc": f"mean_{measure}"}
        under = report["metrics"]
        del under["representations"], report["reliability"]  # they are of accuracy in every task
        under["clean"] = {renamed[name]: entry for name, entry in under["clean"].items()}
        noise = under["noise_levels"]["gaussian_noise"]
        under["noise_levels"]["gaussian_noise"] = {renamed[name]: entry for name, entry in noise.items()}
        path.write_text(json.dumps(report | {"reliability": {}}))


def grid(folder, write_run):
    """Alpha and temperature, a placebo and a run that failed."""
    for seed in range(4):
        write_run(folder / f"c-{seed}", alpha=1.0, seed=seed, acc=0.8 + seed / 100, nll=0.5, classes=2)
        for alpha, t in ((0.1, 1.0), (0.1, 4.0), (0.5, 1.0), (0.5, 4.0)):
            acc, place = 0.81 + seed / 90 + t / 100, folder / f"kd-{alpha}-{t}-{seed}"
            write_run(place, alpha=alpha, temperature=t, seed=seed, acc=acc, val=0.9, nll=0.4 + alpha, classes=2)
        write_run(folder / f"p-{seed}", loss="permuted_kd", alpha=0.1, seed=seed, acc=0.79, val=0.5, classes=2)
    write_run(folder / "failed", temperature=16.0, status="diverged", classes=2)


def conditions(folder, write_run, write_report):
    """Few and noisy labels, and robustness reports."""
    few_data(folder / "few", write_run)
    wrong_labels(folder / "wrong", write_run)
    for seed, place in enumerate(sorted((folder / "few").glob("kd-1.0-*"))):
        noisy = {"teacher": 0.6, "control": 0.4 + seed / 200, "student": 0.5 + seed / 100}
        write_report(place, control=0.8, student=0.85 + seed / 100, noisy=noisy)
        path = place / "robustness.json"
        report = json.loads(path.read_text())
        path.write_text(json.dumps(report | {"accuracy_under": {"clean": report["metrics"]["clean"]["acc"]}}))


@pytest.fixture
def said(tmp_path, write_run, write_report, monkeypatch, capsys):
    """Whatever is said of runs, by the place where it stands; given what is done to the runs before."""
    monkeypatch.setattr(page, "_packed_plotly", str)
    drawn = []
    for module in pkgutil.iter_modules(png_figures.__path__):
        found = import_module(f"{png_figures.__name__}.{module.name}")
        if module.name != "drawing" and hasattr(found, "save"):
            monkeypatch.setattr(found, "save", lambda figure, path: drawn.append((path.stem, _content(figure))))

    def words(change):
        drawn.clear()
        folder = tmp_path / "runs"
        grid(folder / "grid", write_run)
        conditions(folder / "conditions", write_run, write_report)
        change(folder)
        places = {}
        for part in ("grid", "conditions"):
            comparison = compared(folder / part)
            places[part, "answer"] = f"{answer(comparison)} {headline(comparison)}"
            for name in page.ORDER:
                made = list(import_module(f"{sections.__name__}.{name}").sections(comparison))
                places[part, name] = str(made) if made else ""
            for width in (90, 200):
                monkeypatch.setattr(terminal, "screen", lambda width=width: Screen(width=width))
                terminal.show_comparison(comparison)
                places[part, f"table of {width} characters"] = capsys.readouterr().out
            terminal.show_run(comparison.distilled[0].runs[0].folder)
            places[part, "run"] = capsys.readouterr().out
            for what, path in write(comparison, folder / part, source=[]):
                places[part, what] = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", path.read_text()) if path.exists() else ""
        ((_, report), *_) = found = list(comparison.reports.items())
        show(report, folder)
        robustness.corruptions(report, folder / "corruptions.png")
        robustness.levels(report, folder / "levels.png")
        show_sweep(json.loads(json.dumps(over_seeds(_with(comparison, dict(found)), dict(found)))), folder)
        places["robustness", "terminal"] = capsys.readouterr().out
        run = comparison.distilled[0].runs[0]
        training_curves.training_curves(run.epochs, folder / "training.png", run.measure)
        return places | {("figure", name): content for name, content in drawn}

    return words


def _content(figure):
    """All that is written in a figure, and where its lines are."""
    lines = [line.get_xydata().tolist() for line in figure.findobj(matplotlib.lines.Line2D)]
    return f"{[text.get_text() for text in figure.findobj(matplotlib.text.Text)]} {lines}"


def _with(comparison, reports):
    return [group for group in comparison.distilled if all(run.folder in reports for run in group.runs)]


@pytest.mark.parametrize("measure", NAMES)
def test_wherever_classification_says_accuracy_another_task_says_its_own_metric(said, tmp_path, measure):
    of_classes = said(lambda folder: None)
    of_pixels = said(lambda folder: of_masks(folder, measure))
    assert of_classes.keys() == of_pixels.keys()
    assert {name for _, name in of_classes} >= {*page.ORDER, "corruptions", "levels", "training"}
    left_out = [name for name in page.ORDER if not any(of_classes[part, name] for part in ("grid", "conditions"))]
    assert left_out == ["budget", "masks", "texts", "images"]  # which these runs do not keep
    own = re.compile(rf"\b{NAMES[measure]}\b|(?<=mean validation )IoU\b|(?<=highest mean )IoU\b", re.IGNORECASE)
    for place, words in of_classes.items():
        if place[1] in ("CSV", "report"):  # the one has every metric, the other the sections from above
            continue
        assert not (found := ACCURACY.search(of_pixels[place])), (place, of_pixels[place][found.start() - 99 :][:200])
        if place[1] != "levels":  # its axis has no name
            assert bool(ACCURACY.search(words)) == bool(own.search(of_pixels[place])), place
    assert sum(bool(ACCURACY.search(words)) for words in of_classes.values()) > 30


@pytest.mark.parametrize("measure", NAMES)
def test_pixel_accuracy_has_no_part_in_what_is_shown(said, measure):
    some, others = (said(lambda folder, acc=acc: of_masks(folder, measure, acc)) for acc in (0.5, 0.999))
    tables = {place for place in some if place[1] == "CSV"}
    assert {place for place in some if some[place] != others[place]} == tables


def test_the_numbers_are_those_of_the_metric(sweep, capsys):
    of_masks(sweep, "dice")
    comparison = compared(sweep)
    assert comparison.measure == "dice"
    terminal.show_comparison(comparison)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Chosen by mean validation Dice among 2 configurations: temperature=1, 90.00 ± 0.00 % on val." in shown
    assert "temperature=1 against the control: +3.00 points of test Dice; too few seeds" in shown


@pytest.mark.parametrize(
    ("measure", "more"),
    [("dice", ["sensitivity", "specificity", "auc", "ece"]), ("miou", ["Dice", "auc", "ece"])],
)
def test_further_metrics_stand_beside_it(sweep, monkeypatch, capsys, measure, more):
    of_masks(sweep, measure)
    monkeypatch.setattr(terminal, "screen", lambda: Screen(width=200))
    terminal.show_sweep(sweep)
    head = next(line for line in capsys.readouterr().out.splitlines() if f"val {NAMES[measure]}" in line)
    name = NAMES[measure]
    heads = re.split("  +", head.strip())
    assert heads == ["n", f"val {name}", name, f"{name}, last epoch", *more, "gain", "95 % t interval", "p"]
    (section,) = import_module(f"{sections.__name__}.configurations").sections(compared(sweep))
    assert [heading.name for heading in section.table.headings] == [
        *("configuration", "n", f"val {name}", f"test {name}", f"test {name}, last epoch"),
        *(f"test {other}" for other in more),
        *("gain", "95 % t interval", "p"),
    ]


def test_one_runs_dice_has_no_interval_over_test_samples(tmp_path, write_run):
    write_run(tmp_path / "c", alpha=1.0, acc=0.7)
    write_run(tmp_path / "k", acc=0.8)
    assert compared(tmp_path).winner.estimate("acc").interval is not None
    of_masks(tmp_path, "dice", acc=0.9)
    comparison = compared(tmp_path)
    (teacher,) = comparison.teachers.values()
    assert comparison.winner.estimate("dice") == (0.8, None)
    assert comparison.winner.estimate("acc") == (0.9, None)  # a pixel is no sample of its own
    assert comparison.of_teacher(teacher) == (0.99, None)
    (section,) = import_module(f"{sections.__name__}.errors").sections(comparison)
    assert "Test Dice: higher is better" in section.lead
    assert "Wilson" not in section.lead
    ((figure,),) = section.figures.values()
    shown = {name: value for bars in figure.plot["data"] for name, value in zip(bars["y"], bars["x"], strict=True)}
    assert shown["teacher cnn<br>99.00 % Dice"] == 99.0


def test_a_mean_over_seeds_of_mean_iou_is_called_once(sweep):
    of_masks(sweep, "miou")
    assert answer(compared(sweep))[0].startswith("Chosen by mean validation IoU among 2 configurations")


@pytest.mark.parametrize("sort", [None, "val/dice", "val/acc", "test/dice"])
def test_runs_are_sorted_by_it_unless_something_else_is_asked_for(sweep, sort):
    of_masks(sweep, "dice")
    labels = [group.label for group in Comparison(find([sweep])[0], sort).groups]
    by_test = ["control", "temperature=4", "temperature=1"]
    assert labels == (by_test if sort == "test/dice" else ["control", "temperature=1", "temperature=4"])


def test_a_trackers_summary_has_its_gain(sweep):
    of_masks(sweep, "dice")
    run, control = (json.loads((sweep / name / "results.json").read_text()) for name in ("one-0", "control-0"))
    summary = final(run, control)
    assert summary["test/dice"] == 0.84
    assert summary["test_last/dice"] == pytest.approx(0.83)
    assert summary["teacher/test/dice"] == 0.99
    assert summary["gain/dice"] == pytest.approx(0.04)


@pytest.fixture
def two_tasks(tmp_path, write_run):
    """A sweep of two data sets, whose runs are compared by accuracy and by Dice."""
    for name in ("classes", "masks"):
        for seed in range(2):
            write_run(tmp_path / name / f"c-{seed}", alpha=1.0, seed=seed, acc=0.8)
            write_run(tmp_path / name / f"k-{seed}", seed=seed, acc=0.9)
    of_masks(tmp_path / "masks", "dice", dataset="shapes")
    return tmp_path


MIXED = "runs must be of one metric to be compared, got acc of dataset=digits, dice of dataset=shapes"


def test_runs_of_several_metrics_are_not_compared_and_a_line_says_how_to(two_tasks, command, capsys):
    with pytest.raises(ValueError, match=f"^{MIXED}"):
        compared(two_tasks)
    terminal.show_sweep(two_tasks)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"not compared: {MIXED}")
    assert shown[1] == f"run folders   {two_tasks}/*"
    assert len(shown) == 2
    assert not (two_tasks / "report.html").exists()
    done = command("kdexp-compare", two_tasks, rc=2)
    assert MIXED in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "val Dice" in command("kdexp-compare", two_tasks, "where=dataset=shapes").stdout


def test_a_failed_run_of_another_task_is_only_named(two_tasks, write_run, capsys):
    for path in (two_tasks / "classes").glob("*/results.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "error": "no"}))
    terminal.show_comparison(compared(two_tasks))
    shown = capsys.readouterr().out
    assert "val Dice" in shown
    assert shown.count("failed: ") == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "a\x1b[2J"}, "measure must be letters and digits"),
        ({"measure": 5}, "measure must be str"),
        ({"measure": "dice"}, "teacher.val.dice must be given, got nothing"),
    ],
    ids=str,
)
def test_what_somebody_else_calls_their_metric_is_checked(tmp_path, write_run, change, message):
    write_run(tmp_path / "k")
    path = tmp_path / "k" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=re.escape(message)):
        results.read(tmp_path / "k", "run")


def test_a_metric_that_kdexp_does_not_know_has_its_own_name_and_is_shown_as_it_is(sweep, capsys):
    of_masks(sweep, "r2")
    terminal.show_sweep(sweep)
    shown = " ".join(capsys.readouterr().out.split())
    assert "val r2" in shown
    assert "temperature=1, 0.9000 ± 0.0000 on val" in shown
    assert "temperature=1 against the control: +0.0300 of test r2" in shown
    assert glossary.known("r2").title == "R2"


def test_a_metric_with_a_unit_is_shown_in_it(sweep, capsys, tmp_path):
    of_masks(sweep, "elbo")
    comparison = compared(sweep)
    terminal.show_comparison(comparison)
    shown = " ".join(capsys.readouterr().out.split())
    assert "ELBO in nats, on test unless" in shown
    assert "Chosen by mean validation ELBO among 2 configurations: temperature=1, 0.90 ± 0.00 nats on val." in shown
    assert "temperature=1 against the control: +0.03 nats of test ELBO; too few seeds" in shown
    for name in set(page.ORDER) - {"roc", "confusion", "loss_statement"}:  # which such runs do not have, or not of ECE
        for section in import_module(f"{sections.__name__}.{name}").sections(comparison):
            said = re.sub(r"95 %|\d+ % of the way", "", str(section))
            assert "points" not in said, name
            assert not re.search(r"[\d}] ?%(?!{)", said), name


def test_where_lower_is_better_the_least_is_chosen_and_a_gain_is_what_is_less(sweep, monkeypatch):
    monkeypatch.setitem(glossary._METRICS, "wer", glossary.Metric("word error", lower_is_better=True))
    of_masks(sweep, "wer")
    comparison = compared(sweep)
    assert [group.label for group in comparison.ranked] == ["temperature=4", "temperature=1"]
    assert comparison.winner.gain.mean == pytest.approx(-0.04)
    assert headline(comparison).startswith("temperature=4 against the control: -4.00 points of test word error")
    (section,) = import_module(f"{sections.__name__}.method").sections(comparison)
    assert "the lowest mean word error on val" in section.lead
