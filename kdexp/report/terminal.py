"""What a person sees in the terminal at the end of a run, a sweep or a comparison, from results.json alone."""

import math
import shlex
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from kdexp import results
from kdexp.config import quick
from kdexp.report import article_claims, glossary
from kdexp.report.artifacts import write
from kdexp.report.comparison import Comparison
from kdexp.report.loss_statement_files import keep, keep_all
from kdexp.report.run_group import RunGroup
from kdexp.report.runs import find, look_for_control, prior_runs, read_run
from kdexp.report.summary_text import answer, headline, interval
from kdexp.results import Record
from kdexp.terminal import screen

_WIDE = 160  # a narrower terminal gets fewer columns
Teachers = Mapping[str, Record]


def show_run(folder: Path) -> None:
    """Print one finished run: teacher, control when there is one beside it, student; and where everything is.

    With a control its loss statement is written.
    """
    run = read_run(folder)
    rows = [RunGroup(before.folder.name, {}, [before]) for before in prior_runs(run)]
    control, unread = (None, []) if run.is_control else look_for_control(run.results, folder.parent)
    if control is not None:
        rows.insert(0, RunGroup("control", {}, [control]))
    rows.append(RunGroup("control" if run.is_control else "distilled", {}, [run]))
    teachers = {"teacher": run.teacher} if run.teacher else {}
    console = screen()
    console.print(_legend(rows[-1].measure))
    console.print(_table(teachers, rows, console.width))
    _judge_teacher(console, teachers, rows[:1] if control else [])
    console.print(f"run folder    {folder}", soft_wrap=True)
    console.print(f"figures       {folder / 'figures'}", soft_wrap=True)
    if run.settings.get("quick"):
        console.print(quick.NOTE, highlight=False, soft_wrap=True)
    elif control is not None:
        console.print(f"statement     {keep(run, control)}", highlight=False, markup=False, soft_wrap=True)
    tracked = run.results.get("tracking", {})
    command = {
        "wandb": f"wandb leet {shlex.quote(str(folder / 'wandb'))}",
        "tensorboard": f"tensorboard --logdir {shlex.quote(str(folder.parent))}",
        "mlflow": f"mlflow ui --backend-store-uri {shlex.quote(str(tracked.get('location')))}",
    }.get(tracked.get("tool"))
    if command and tracked["location"]:
        console.print(f"dashboard     {command}", soft_wrap=True)
    console.print(f"re-evaluate   kdexp-eval {results.argument('run', folder)}", soft_wrap=True)
    for line in unread:
        console.print(f"skipped: {line}", soft_wrap=True, markup=False, highlight=False)


def show_sweep(folder: Path, names: Collection[str] | None = None, *, is_page_of_all: bool = True) -> None:
    """Print the completed runs of a sweep, grouped over seeds, and what they say; write its report there.

    Args:
        folder: the sweep's folder, with a run folder for each job.
        names: of the run folders that are shown; all unless given.
        is_page_of_all: whether the report is of all run folders, else of these.
    """
    found, console = find([folder])[0], screen()
    try:
        comparison = Comparison(found)
    except ValueError as error:  # of several tasks: each can be looked at alone
        console.print(f"not compared: {error}", highlight=False, soft_wrap=True)
        console.print(f"run folders   {folder}/*", soft_wrap=True)
        return
    shown = comparison if names is None else Comparison([run for run in found if run.folder.name in names])
    _show_groups(console, shown)
    console.print(f"run folders   {folder}/*", soft_wrap=True)
    if comparison.completed:
        keep_all(comparison)
        for what, path in write(comparison if is_page_of_all else shown, folder, source=[str(folder)]):
            console.print(f"{what:<14}{path}", soft_wrap=True, highlight=False)


def show_comparison(comparison: Comparison) -> None:
    """Print the table of configurations, the answer in words, and a line for each run that is not completed."""
    console = screen()
    _show_groups(console, comparison)
    for run in comparison.failed:
        line = f"{run.status}: {' '.join(run.results['overrides'])}: {run.error or 'no reason known'}"
        console.print(line, highlight=False, soft_wrap=True)


def _show_groups(console: Console, comparison: Comparison) -> None:
    if comparison.groups:
        if answered := headline(comparison):
            console.print(answered, highlight=False, soft_wrap=True)
        console.print(f"{_legend(comparison.measure)}; mean ± std over n seeds")
        console.print(_table(comparison.teachers, comparison.groups, console.width, comparison.marked))
        _judge_teacher(console, comparison.teachers, comparison.controls)
    found = article_claims.article_claims(comparison)
    for sentence in [*answer(comparison), *map(article_claims.sentence, found)]:
        console.print(sentence, highlight=False, soft_wrap=True)


def _legend(measure: str) -> str:
    metric = glossary.known(measure)
    what = f"{metric.name}{metric.said_in}" if metric.unit else "metrics in %"
    return f"\n{what}, on test unless the column says val, at the epoch chosen on val unless it says last"


def _judge_teacher(console: Console, teachers: Teachers, controls: Sequence[RunGroup]) -> None:
    alone = [value for control in controls for value in control.values(control.measure, "val")]
    if len(teachers) == 1 and alone:
        (teacher,) = teachers.values()
        metric = glossary.known(controls[0].measure)
        if metric.gain(teacher["val"][controls[0].measure], statistics.fmean(alone)) < 0:
            console.print("warning: on val the teacher is worse than the student trained alone")


def _table(
    teachers: Teachers,
    groups: Sequence[RunGroup],
    width: int,
    name_of: Callable[[RunGroup], str] = attrgetter("label"),
) -> Table:
    several = any(len(group.runs) > 1 for group in groups)
    searched = any(group.trials for group in groups)
    paired = any(group.is_control for group in groups) and any(group.gain for group in groups)
    columns = _columns(groups[-1].measure, is_wide=width >= _WIDE)
    table = Table(box=SIMPLE)
    table.add_column("", overflow="fold")
    counts = [*(["n"] if several else []), *(["trials"] if searched else [])]
    for name in (*counts, *columns, *(["gain", "95 % t interval", "p"] if paired else [])):
        table.add_column(name, justify="right")
    for name, teacher in teachers.items():
        cells = (
            "" if epoch == "last" else _number([teacher[split].get(metric)], metric)
            for metric, split, epoch in columns.values()
        )
        table.add_row("teacher" if len(teachers) == 1 else f"teacher {name}", *([""] * len(counts)), *cells)
    for group in groups:
        cells = (_number(group.values(*column), column[0]) for column in columns.values())
        gain = (_gain(group) if not group.is_control else ("", "", "")) if paired else ()
        count = [str(len(group.runs))] if several else []
        trials = [str(group.trials or 1)] if searched else []
        table.add_row(name_of(group), *count, *trials, *cells, *gain)
    return table


def _columns(measure: str, *, is_wide: bool) -> dict[str, tuple[str, str, str]]:
    """Column -> metric, split and epoch."""
    name = glossary.known(measure).column
    more = glossary.beside(measure) if is_wide else ()
    return {
        f"val {name}": (measure, "val", "best"),
        name: (measure, "test", "best"),
        f"{name}, last epoch": (measure, "test", "last"),
        **{glossary.known(other).column: (other, "test", "best") for other in more},
    }


def _gain(group: RunGroup) -> tuple[str, str, str]:
    gain = group.gain
    if gain is None:
        return "no control", "", ""
    p = "" if gain.p is None else f"{gain.p:.2g}"
    return _number(gain.differences, group.measure, sign=True), interval(gain, glossary.known(group.measure)), p


def _number(values: Iterable[float | None], metric: str, *, sign: bool = False) -> str:
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "-"
    std = statistics.stdev(known) if len(known) > 1 else None
    return glossary.known(metric).spread(statistics.fmean(known), std, sign=sign)
