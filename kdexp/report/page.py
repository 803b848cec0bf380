"""report.html: one self-contained file that answers which setting, by how much, and whether it is significant."""

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kdexp.atomic import atomic_path
from kdexp.report import claims, glossary, plots, robustness
from kdexp.report.comparison import Comparison, Setting, heeds, plain, teachers_part
from kdexp.report.curves import CONDITIONS, Curve, curves
from kdexp.report.runs import Run
from kdexp.report.statistics import FEWEST_SEEDS, Paired, with_p
from kdexp.report.summary import answer, interval, points, spread, tested, tie
from kdexp.robustness.axes.corruptions import is_of_corruptions


@dataclass(frozen=True)
class Figure:
    """One drawing.

    Attributes:
        title: above it.
        plot: what Plotly draws.
    """

    title: str
    plot: plots.Plot


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and filtered when it has many rows.

    Attributes:
        columns: their heads.
        rows: a cell a column: text, or (text, what it is sorted by).
        words: the columns, by place, that hold words; the others' numbers stand right.
        commands: the columns, by place, that hold something to copy.
        notes: lines below it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    words: Sequence[int] = (0,)
    commands: Sequence[int] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """A question of the first screen, its answer and what stands below it; tone is good, bad, unknown or none."""

    question: str
    answer: Sequence[str]
    notes: Sequence[str]
    tone: str = ""


@dataclass(frozen=True)
class Failure:
    """A run that is not completed."""

    title: str
    status: str
    error: str
    log_tail: str
    command: str | None


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its anchor.
        title: its head.
        lead: a sentence or two on how to read it, or why there is nothing to see.
        figures: name of a variant -> its figures; with several variants the reader chooses one.
        table: shown below the figures.
        failures: shown below the table.
        wide: whether its figures stand below each other.
    """

    name: str
    title: str
    lead: str
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    table: Table | None = None
    failures: Sequence[Failure] = ()
    wide: bool = False


def write_page(comparison: Comparison, path: Path, *, source: Sequence[str], unread: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        comparison: what it shows.
        path: the HTML file.
        source: where the runs were found and how they were chosen, in the user's words.
        unread: a line for each results.json that could not be read.
    """
    sections = list(_sections(comparison))
    plotted: list[plots.Plot] = []

    def number(figure: Figure) -> int:
        plotted.append(figure.plot)
        return len(plotted) - 1

    environment = Environment(
        loader=PackageLoader("kdexp.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["unbroken"] = _unbroken
    page = environment.get_template("page.html").render(
        title=title(comparison),
        meta=_meta(comparison, source),
        cards=_cards(comparison),
        sentences=answer(comparison),
        unread=unread,
        sections=sections,
        number=number,
        plotted=plotted,
        in_script=_in_script,
        plotly=_packed_plotly,
        asset=lambda name: (files("kdexp.report") / "page" / name).read_text(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _unbroken(text: str) -> str:
    """No line ends within ``80.50 ± 0.71 %``."""
    return re.sub(r" (?=[±%])|(?<=±) ", "\u00a0", text)


def _in_script(value: Any) -> str:
    """JSON that can stand in a <script>: no text in it can end the element."""
    return json.dumps(value, separators=(",", ":"), default=float).replace("<", "\\u003c")


def _packed_plotly() -> str:
    """Plotly's script, compressed: a third of its size in the page."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def title(comparison: Comparison) -> str:
    """Which students, taught by whom, on what."""

    def names(group: str) -> list[str]:
        # A control has a choice of teacher, too, that nobody asked.
        found = (run.results.get("choices", {}).get(group) for run in comparison.runs if heeds(run, group))
        return list(dict.fromkeys(name for name in found if name))

    def several(group: str, plural: str) -> str:
        known = names(group)
        return known[0] if len(known) == 1 else f"{len(known)} {plural}"

    if not names("student"):
        return "kdexp comparison"
    taught = f" taught by {several('teacher', 'teachers')}" if comparison.distilled else ""
    return f"{several('student', 'students')}{taught} on {several('dataset', 'data sets')}"


def _meta(comparison: Comparison, source: Sequence[str]) -> list[str]:
    seeds, done = sorted({run.seed for run in comparison.completed}), bool(comparison.completed)
    pruned = sum(run.status == "pruned" for run in comparison.runs)
    return [
        _counted(len(comparison.runs), "run"),
        *(
            [f"{_counted(len(comparison.distilled), 'setting')} and {_counted(len(comparison.controls), 'control')}"]
            * done
        ),
        *([f"seeds {', '.join(map(str, seeds))}" if len(seeds) <= 6 else _counted(len(seeds), "seed")] * done),
        *([f"{pruned} pruned"] if pruned else []),
        *([f"{len(comparison.failed)} not completed"] if comparison.failed else []),
        " ".join(source),
        f"{datetime.now():%Y-%m-%d %H:%M}",
    ]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


_SIGNIFICANT = "Is it statistically significant?"


def _cards(comparison: Comparison) -> list[Card]:
    """The three questions of the first screen."""
    winner, control = comparison.winner, comparison.control
    if winner is None or comparison.is_quick:
        return []
    gain, many = winner.gain, len(comparison.candidates)
    values = [f"{axis} = {plain(value)}" for axis, value in winner.axes.items() if plots.varies(axis, comparison)]
    chosen = f"chosen on val among {many}" if many > 1 else "the only one"
    ties = [tie(comparison)] if comparison.tied else []
    which = Card("Which setting?", values or [winner.label], [chosen, f"val {spread(winner, 'val')}", *ties])
    if gain is None or control is None:
        size = Card("By how much?", [spread(winner)], ["on test, without a control of the same seeds"])
        return [which, size, Card(_SIGNIFICANT, ["Cannot be told"], ["run the control too: alpha=1"], "unknown")]
    notes = [f"{spread(winner)} against the control's {spread(control)}"]
    if gain.interval:
        notes.append(f"95 % t interval {interval(gain)}")
    size = Card("By how much?", [f"{points(gain.mean)} points on test"], [*notes, *_gap(comparison, winner, control)])
    up = sum(value > 0 for value in gain.differences)
    signs = f"{up} of {_counted(gain.n, 'seed')} {'gains' if up == 1 else 'gain'}"
    tone = {"better": "good", "worse": "bad"}.get(gain.verdict, "unknown")
    return [which, size, Card(_SIGNIFICANT, [gain.verdict.capitalize()], [signs, tested(gain)], tone)]


def _gap(comparison: Comparison, winner: Setting, control: Setting) -> list[str]:
    own, alone = winner.mean("acc"), control.mean("acc")
    teacher = next((teacher["test"]["acc"] for teacher in comparison.teachers.values()), None)
    if own is None or alone is None or teacher is None or not alone < own <= teacher:
        return []
    return [f"{100 * (own - alone) / (teacher - alone):.0f} % of the way to the teacher's {100 * teacher:.2f} %"]


def _errors(comparison: Comparison) -> Section | None:
    if not comparison.settings:
        return None
    return Section(
        "errors",
        "Teacher, control, student",
        "Test error: shorter is better. The control is the same student trained alone. Lines are 95 % intervals: t "
        f"intervals over seeds where there are at least {FEWEST_SEEDS}, and Wilson's over test samples where there is "
        "one run; two seeds have none.",
        {"": [Figure("Share of the test samples that are wrong", plots.errors(comparison))]},
        wide=True,
    )


def _heat_maps(comparison: Comparison) -> Section | None:
    axes = plots.heat_axes(comparison)
    if axes is None:
        return None
    measures: list[tuple[str, bool, Callable[[Setting], float | None]]] = [
        ("Accuracy on val, %", False, lambda setting: setting.mean("acc", "val")),
        ("Accuracy on test, %", False, lambda setting: setting.mean("acc")),
        ("Gain over the control on test, points", True, lambda setting: setting.mean_gain),
    ]
    limits = []
    for _, difference, value in measures:
        known = [found for setting in comparison.distilled if (found := value(setting)) is not None]
        largest = max((abs(found) for found in known), default=0.0)
        limits.append((-largest, largest) if difference else (min(known, default=0.0), max(known, default=0.0)))
    figures = {}
    for name, settings in plots.facets(comparison).items():
        figures[name] = [
            Figure(title, plots.heat_map(comparison, settings, value, difference=difference, limits=limit))
            for (title, difference, value), limit in zip(measures, limits, strict=True)
            if any(value(setting) is not None for setting in settings)
        ]
    return Section(
        "heat-map",
        " and ".join(axes),
        "Means over seeds. The choice is made on val, the left map, alone; its cell is outlined.",
        figures,
    )


def _settings(comparison: Comparison) -> Section | None:
    if not comparison.settings:
        return None
    gains = plots.gains(comparison)
    lead = (
        "Test accuracy less that of the control with the same seed; ticks are seeds, lines 95 % t intervals over "
        f"them ({FEWEST_SEEDS} seeds or more). The order is that of the choice on val: the uppermost is chosen."
        if gains
        else "There is no control (alpha=1) with the same seeds: no gain can be given."
    )
    figure = {"": [Figure("Gain over the control", gains)]} if gains else {}
    return Section("settings", "Every setting", lead, figure, _settings_table(comparison), wide=True)


def _settings_table(comparison: Comparison) -> Table:
    measures = ("val acc", "test acc", "test acc, last epoch", "test f1", "test auc")
    columns = ["setting", "n", *measures, "gain", _INTERVAL, "p"]
    rows = []
    for setting in comparison.settings:
        gain = setting.gain
        rows.append(
            [
                comparison.marked(setting),
                (len(setting.runs), len(setting.runs)),
                _cell(setting, "acc", "val"),
                _cell(setting, "acc"),
                _cell(setting, "acc", epoch="last"),
                _cell(setting, "f1"),
                _cell(setting, "auc"),
                (points(gain.mean), gain.mean) if gain else ("", None),
                _range(gain),
                (f"{gain.p:.3g}", gain.p) if gain and gain.p is not None else ("", None),
            ]
        )
    return Table(columns, rows)


def _cell(setting: Setting, name: str, split: str = "test", epoch: str = "best") -> tuple[str, float | None]:
    mean, std = setting.mean(name, split, epoch), setting.std(name, split, epoch)
    if mean is None:
        return "", None
    return (f"{100 * mean:.2f}" if std is None else f"{100 * mean:.2f} ± {100 * std:.2f}"), mean


_INTERVAL = "95 % t interval"


def _range(gain: Paired | None) -> tuple[str, float | None]:
    return ("", None) if gain is None else (interval(gain), gain.interval[0] if gain.interval else None)


def _parallel(comparison: Comparison) -> Section | None:
    if len(comparison.distilled) < 2:
        return None
    return Section(
        "parallel",
        "Parallel coordinates",
        "A line is a setting, dark where val accuracy is low and yellow where it is high; the dotted line is the "
        "control, the thick one the choice. Accuracies are in %, the gain on test in points. Hover over a point for "
        "the setting.",
        {"": [Figure("From the settings to what came out", plots.parallel(comparison))]},
        wide=True,
    )


def _learning_curves(comparison: Comparison) -> Section | None:
    if not comparison.settings:
        return None
    names = {"val/acc": "Accuracy on val", "val/loss": "Loss on val", "train/loss": "Loss on train"}
    figures = [Figure(title, plot) for n, title in names.items() if (plot := plots.learning_curves(comparison, n))]
    if not figures:
        return Section("learning", "Learning curves", "No metrics.csv was found beside the results of these runs.")
    return Section(
        "learning",
        "Learning curves",
        "Means over seeds; the shade is the seeds' range. Blue is the chosen setting, dark grey its control, light "
        "grey the next best on val. Losses of different alpha or temperature are not comparable.",
        {"": figures},
    )


def _roc(comparison: Comparison) -> Section | None:
    if not comparison.settings:
        return None
    macro, classes = plots.roc(comparison), plots.roc_of_classes(comparison, _classes(comparison))
    if macro is None:
        return Section("roc", "ROC", "These runs keep no ROC curves: they are from before kdexp kept them.")
    figures = [Figure("Mean over classes (macro)", macro)]
    if classes:
        figures.append(Figure("The chosen student, class by class", classes))
    more = "" if classes else " Curves of single classes are kept up to 20 classes."
    lead = f"On test at the best epoch by validation, one class against the rest, means over seeds.{more}"
    return Section("roc", "ROC", lead, {"": figures})


def _confusion(comparison: Comparison) -> Section | None:
    if not comparison.settings:
        return None
    matrices = plots.confusions(comparison, _classes(comparison))
    if not matrices:
        reason = "they are of several labels, of more than 100 classes, or from before kdexp kept them."
        return Section("confusion", "Confusion", f"These runs keep no confusion matrix: {reason}")
    return Section(
        "confusion",
        "Confusion",
        "On test at the best epoch by validation, summed over seeds; the shade is the share of the true class (its "
        "root, so that rare confusions are seen).",
        {"": [Figure(name, matrix) for name, matrix in matrices.items()]},
    )


def _costs(comparison: Comparison) -> Section | None:
    names = {"parameters": "Parameters", "macs": "Multiply-accumulates", "seconds": "Training time"}
    figures = [Figure(title, plot) for name, title in names.items() if (plot := plots.costs(comparison, name))]
    if not figures:
        return None
    return Section(
        "cost",
        "Accuracy against cost",
        "What a network costs to keep, to run on one sample, and what the student cost to train on the machine of "
        "its run. Lines are 95 % intervals, as in the first figure.",
        {"": figures},
    )


def _runs(comparison: Comparison) -> Section:
    axes = [axis for axis in comparison.axes if any(axis in run.settings for run in comparison.runs)]
    facts = ("status", "val acc", "test acc", "test acc, last epoch", "best epoch", "seconds", "command")
    columns = ["run", *axes, "seed", *facts]
    rows = [
        [run.folder.name, *(_setting(run, name) for name in (*axes, "seed")), *_facts(run)] for run in comparison.runs
    ]
    named = [axis for axis in axes if any(isinstance(run.settings.get(axis), str) for run in comparison.runs)]
    words = [columns.index(name) for name in ("run", *named, "status", "command")]
    more = "Accuracies in %; the best epoch is chosen on val, by the metric in trainer.monitor."
    if comparison.repeated:
        more += (
            f" Of runs with the same setting and seed the last one counts; {len(comparison.repeated)} others are seen "
            "here alone."
        )
    return Section("runs", "Every run", more, table=Table(columns, rows, words, [len(columns) - 1]), wide=True)


def _setting(run: Run, axis: str) -> tuple[str, Any]:
    value = run.settings.get(axis)
    has_no_part = axis != "alpha" and not heeds(run, axis)
    return ("", None) if value is None or has_no_part else (plain(value), value)


def _facts(run: Run) -> list[Any]:
    seconds = run.results.get("cost", {}).get("seconds", {}).get("total")
    best = run.results.get("epochs", {}).get("best")
    accuracies = [run.metric("acc", *where) for where in (("val", "best"), ("test", "best"), ("test", "last"))]
    return [
        run.status,
        *((f"{100 * value:.2f}", value) if value is not None else ("", None) for value in accuracies),
        ("", None) if best is None else (str(best), best),
        ("", None) if seconds is None else (f"{seconds:.1f}", seconds),
        run.command or "(started from Python)",
    ]


def _failed(comparison: Comparison) -> Section | None:
    if not comparison.failed:
        return None
    silent = {"running": "it is still at work", "waiting": "it has not begun"}
    failures = [
        Failure(
            run.folder.name,
            run.status,
            run.error or silent.get(run.status, "no reason is known"),
            run.log_tail,
            run.command,
        )
        for run in comparison.failed
    ]
    return Section("failed", "Not completed", "These runs count in no figure and no mean.", failures=failures)


def _method(comparison: Comparison) -> Section | None:
    if not comparison.settings:
        return None
    return Section(
        "method",
        "How these numbers are made",
        "A run's best epoch is chosen on val, by the metric in trainer.monitor, and the best setting by the highest "
        "mean accuracy on val among those with the most seeds; of equals that with the lowest mean NLL on val, and of "
        "these the first on the command line. 'Best' never means best on test.\nSettings are compared with their "
        "control (the same student, data and recipe with alpha=1) seed by seed: the same initial weights and the same "
        "order of the data.\nThe test is the paired t test over seeds, two-sided, and the interval of a gain the 95 % "
        "t interval of the same differences: it leaves out 0 exactly where p < 0.05. The interval of one setting's "
        f"own mean is a t interval, too. Fewer than {FEWEST_SEEDS} seeds have neither interval nor p. Both say how "
        "another seed would turn out, not another test set. Where several settings are tested, their p values are "
        "not corrected for it.",
    )


def _classes(comparison: Comparison) -> list[str]:
    shown = comparison.winner or comparison.control
    config = shown.runs[0].results["config"]["dataset"] if shown else {}
    return list(config.get("classes") or map(str, range(config.get("num_classes", 0))))


def _claims(comparison: Comparison) -> Section | None:
    found = claims.claims(comparison, comparison.reports)
    if not found:
        return None
    rows: list[list[Any]] = []
    for claim in found:
        for one in claim.evidence:
            rows.append(
                [
                    claim.name,
                    f"{one.what}{' (decides)' if one.decides else ''}",
                    *((f"{100 * value:.2f}", value) for value in (one.control, one.student)),
                    (points(one.gain.mean), one.gain.mean),
                    _range(one.gain),
                    claims.surety(one.gain),
                ]
            )
    lines = [claims.METHOD, *(" ".join([claims.sentence(claim), *claim.remarks]) for claim in found)]
    columns = ["claim", "measure", "control", "student", "better by", _INTERVAL, "verdict"]
    return Section("claims", "Does the article's claim hold?", "\n".join(lines), table=Table(columns, rows, (0, 1, 6)),
                   wide=True)  # fmt: skip


def _conditions(comparison: Comparison) -> Iterator[Section]:
    """A section for each condition of the training data that was swept."""
    found: dict[str, list[Curve]] = {}
    for curve in curves(comparison):
        found.setdefault(curve.axis, []).append(curve)
    for axis, several in found.items():
        figures = {}
        for curve in several:
            figures[curve.where] = [Figure("Accuracy", plots.condition(curve))]
            gains = plots.condition_gains(curve)
            figures[curve.where] += [Figure("Gain over the control", gains)] if gains else []
        yield Section(
            axis.rpartition(".")[2].replace("_", "-"),
            f"Over the {CONDITIONS[axis]}",
            f"Means over seeds with 95 % t intervals ({FEWEST_SEEDS} seeds or more). Gains are paired by seed; their p "
            "values are not corrected for the number of points. The teacher is the one that the student of that "
            "point had.",
            figures,
            _condition_table(axis, several),
        )


def _condition_table(axis: str, several: Sequence[Curve]) -> Table:
    rows: list[list[Any]] = []
    for curve in several:
        for line in curve.students:
            for dose, setting in line.settings.items():
                control = curve.control.settings.get(dose) if curve.control else None
                teacher, gain = curve.teacher.get(dose), setting.gain
                rows.append(
                    [
                        " ".join(filter(None, (curve.where, line.label))),
                        (plain(dose), dose),
                        (f"{100 * teacher:.2f}", teacher) if teacher is not None else ("", None),
                        _cell(control, "acc") if control else ("", None),
                        _cell(setting, "acc"),
                        (points(gain.mean), gain.mean) if gain else ("", None),
                        _range(gain),
                        with_p(gain.verdict, gain.p) if gain else "no control",
                    ]
                )
    columns = ["student", axis, "teacher", "control", "distilled", "gain", _INTERVAL, "verdict"]
    return Table(columns, rows, (0, 7))


def _soft_labels(comparison: Comparison) -> Section | None:
    """What the teacher adds to what soft labels do without one."""
    rows: list[list[Any]] = []
    said = []
    for taught, substitute, gain in teachers_part(comparison):
        verdict = with_p(gain.verdict, gain.p)
        rows.append(
            [
                taught.label,
                substitute.label,
                _cell(taught, "acc"),
                _cell(substitute, "acc"),
                (points(gain.mean), gain.mean),
                _range(gain),
                verdict,
            ]
        )
        said.append(f"{taught.label} against {substitute.label}: {points(gain.mean)} points, {verdict}.")
    if not rows:
        return None
    lead = (
        "Soft labels that know nothing of the teacher but how uncertain it is, or nothing of what it says about the "
        f"wrong classes, are what a teacher has to beat. {' '.join(said)}"
    )
    columns = ["taught", "without the teacher's knowledge", "taught, acc", "without, acc", "difference",
               _INTERVAL, "verdict"]  # fmt: skip
    return Section(
        "soft-labels", "The teacher, or soft labels?", lead, table=Table(columns, rows, (0, 1, 6)), wide=True
    )


def _robustness(comparison: Comparison) -> Section | None:
    figures: dict[str, list[Figure]] = {}
    rows: list[list[Any]] = []
    answers, said, measures = [], [], dict[str, None]()
    for setting in comparison.distilled or comparison.controls:
        examined = [run for run in setting.runs if run.folder in comparison.reports]
        if not examined:
            continue
        reports = [comparison.reports[run.folder] for run in examined]
        figures[setting.label] = list(_robustness_figures(reports))
        rows += _robustness_rows(setting, reports)
        answers.append(_robustness_answer(setting, reports))
        said.append(f"{setting.label}: {' '.join(robustness.words(reports))}")
        measures |= {name: None for report in reports for _, name, _ in robustness.flat(report["measures"])}
    if not figures:
        return None
    lead = "\n".join(
        [
            *filter(None, answers),
            f"Means over seeds, lines are 95 % t intervals over them ({FEWEST_SEEDS} seeds or more); every network "
            "sees the same noise, and each is attacked for itself. Student less control is paired by seed; p values "
            f"are not corrected for the number of measures. {robustness.UNITS}",
            *said,
        ]
    )
    columns = ["setting", "measure", "teacher", "control", "student", "student - control", _INTERVAL, "verdict"]
    table = Table(columns, rows, (0, 1, 7), notes=list(glossary.explained(measures)))
    return Section("robustness", "Robustness", lead, figures, table)


def _robustness_answer(setting: Setting, reports: plots.Reports) -> str:
    """Of one run by its test samples, of several by their seeds."""
    if setting.is_control:
        return ""
    if len(reports) == 1:
        return f"{setting.label}: {robustness.answer(reports[0])}"
    return robustness.answer_over_seeds(setting.label, list(robustness.accuracy_over_seeds(reports)))


def _robustness_figures(reports: plots.Reports) -> Iterator[Figure]:
    cells = reports[0]["cells"]
    for axis in dict.fromkeys(row["axis"] for row in cells):
        if is_of_corruptions(axis):
            yield Figure(f"Over severity: {axis}", plots.severities(reports, axis))
            yield Figure(f"By corruption: {axis}", plots.corruptions(reports, axis))
    for axis, name in dict.fromkeys((row["axis"], row["name"]) for row in cells):
        if axis in ("noise_dose", "attacks"):
            yield Figure(name.replace("_", " "), plots.doses(reports, axis, name))
    for role in plots.ROLES:
        diagram = plots.reliability(reports, role)
        if diagram:
            yield Figure(f"Calibration of the {role}", diagram)


def _robustness_rows(setting: Setting, reports: plots.Reports) -> Iterator[list[Any]]:
    for row in robustness.measures_over_seeds(reports):
        gain, measure = row["difference"], glossary.known(row["measure"])
        ends = gain["interval"] if gain else None
        yield [
            setting.label,
            glossary.label(row["axis"], row["measure"]),
            *(
                (measure.number(value), value) if (value := row["mean"].get(role)) is not None else ("", None)
                for role in plots.ROLES
            ),
            (measure.number(gain["mean"], sign=True), gain["mean"]) if gain else ("", None),
            (" to ".join(measure.number(end, sign=True) for end in ends), ends[0]) if ends else ("", None),
            with_p(gain["verdict"], gain["p"]) if gain else "",
        ]


def _sections(comparison: Comparison) -> Iterator[Section]:
    for make in SECTIONS:
        made = make(comparison)
        if isinstance(made, Section):
            yield made
        elif made is not None:
            yield from made


SECTIONS: Sequence[Callable[[Comparison], Section | Iterator[Section] | None]] = (
    _claims, _errors, _conditions, _soft_labels, _robustness,
    _heat_maps, _settings, _parallel, _learning_curves, _roc, _confusion, _costs, _runs, _failed, _method,
)  # fmt: skip
"""The page from top to bottom; a function that has nothing to show returns None."""
