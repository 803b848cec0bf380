"""report.html: one self-contained file that answers which configuration, by how much, and whether it is significant."""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from kdexp.atomic import atomic_path
from kdexp.naming import counted
from kdexp.report import glossary, sections
from kdexp.report.comparison import Comparison, depends_on, plain
from kdexp.report.elements import Card, Figure, Section
from kdexp.report.plotly_figures.drawing import Plot
from kdexp.report.run_group import RunGroup
from kdexp.report.summary_text import answer, interval, spread, tested, tie

ORDER = (
    "budget",
    "loss_statement",
    "claims",
    "errors",
    "masks",
    "texts",
    "images",
    "conditions",
    "soft_labels",
    "robustness",
    "heat_map",
    "configurations",
    "parallel",
    "learning_curves",
    "roc",
    "confusion",
    "costs",
    "runs",
    "failed",
    "method",
)
"""The page from top to bottom: the modules of `kdexp.report.sections`."""


def write_page(comparison: Comparison, path: Path, *, source: Sequence[str], unread: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        comparison: what it shows.
        path: the HTML file.
        source: where the runs were found and how they were chosen, in the user's words.
        unread: a line for each results.json that could not be read.
    """
    plotted: list[Plot] = []

    def number(figure: Figure) -> int:
        plotted.append(figure.plot)
        return len(plotted) - 1

    environment = Environment(
        loader=PackageLoader("kdexp.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    page = environment.get_template("page.html").render(
        title=title(comparison),
        meta=_meta(comparison, source),
        cards=_cards(comparison),
        sentences=answer(comparison),
        unread=unread,
        sections=list(_sections(comparison)),
        number=number,
        plotted=plotted,
        in_script=_in_script,
        plotly=_packed_plotly,
        asset=lambda name: (files("kdexp.report") / "page" / name).read_text(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _sections(comparison: Comparison) -> Iterator[Section]:
    for name in ORDER:
        yield from import_module(f"{sections.__name__}.{name}").sections(comparison)


def _unbroken(text: str) -> str:
    """No line ends within ``80.50 ± 0.71 %``."""
    return re.sub(r" (?=[±%])|(?<=±) ", "\u00a0", text)


def _in_script(value: Sequence[Plot]) -> str:
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
        found = (run.results.get("choices", {}).get(group) for run in comparison.runs if depends_on(run, group))
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
    configurations = counted(len(comparison.distilled), "configuration")
    pruned = sum(run.status == "pruned" for run in comparison.runs)
    return [
        counted(len(comparison.runs), "run"),
        *([f"{configurations} and {counted(len(comparison.controls), 'control')}"] * done),
        *([f"seeds {', '.join(map(str, seeds))}" if len(seeds) <= 6 else counted(len(seeds), "seed")] * done),
        *([f"{pruned} pruned"] if pruned else []),
        *([f"{len(comparison.failed)} not completed"] if comparison.failed else []),
        " ".join(source),
        f"{datetime.now():%Y-%m-%d %H:%M}",
    ]


_SIGNIFICANT = "Is it statistically significant?"


def _cards(comparison: Comparison) -> list[Card]:
    """The three questions of the first screen."""
    winner, control = comparison.winner, comparison.control
    if winner is None or comparison.is_quick:
        return []
    gain, many = winner.gain, len(comparison.candidates)
    values = [f"{axis} = {plain(value)}" for axis, value in winner.axes.items() if comparison.varies(axis)]
    chosen = f"chosen on val among {many}" if many > 1 else "the only one"
    ties = [tie(comparison)] if comparison.tied else []
    which = Card("Which configuration?", values or [winner.label], [chosen, f"val {spread(winner, 'val')}", *ties])
    if gain is None or control is None:
        size = Card("By how much?", [spread(winner)], ["on test, without a control of the same seeds"])
        return [which, size, Card(_SIGNIFICANT, ["Cannot be told"], ["run the control too: alpha=1"], "unknown")]
    notes = [f"{spread(winner)} against the control's {spread(control)}"]
    metric = glossary.known(comparison.measure)
    if gain.interval:
        notes.append(f"95 % t interval {interval(gain, metric)}")
    notes += _gap(comparison, winner, control)
    size = Card("By how much?", [f"{metric.difference(gain.mean)} on test"], notes)
    up = sum(value > 0 for value in gain.differences)
    signs = f"{up} of {counted(gain.n, 'seed')} {'gains' if up == 1 else 'gain'}"
    tone = {"better": "good", "worse": "bad"}.get(gain.verdict, "unknown")
    return [which, size, Card(_SIGNIFICANT, [gain.verdict.capitalize()], [signs, tested(gain)], tone)]


def _gap(comparison: Comparison, winner: RunGroup, control: RunGroup) -> list[str]:
    own, alone = (group.mean(comparison.measure) for group in (winner, control))
    teacher = next((teacher["test"][comparison.measure] for teacher in comparison.teachers.values()), None)
    if own is None or alone is None or teacher is None:
        return []
    metric = glossary.known(comparison.measure)
    gained, possible = metric.gain(own, alone), metric.gain(teacher, alone)
    if not 0 < gained <= possible:
        return []
    return [f"{100 * gained / possible:.0f} % of the way to the teacher's {metric.in_unit(metric.number(teacher))}"]
