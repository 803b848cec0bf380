"""What a person sees at the end of a run or a sweep, from results.json alone."""

import math
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from kdexp import results

METRICS = ("acc", "precision", "recall", "f1", "auc")

Results = Mapping[str, Any]


def show_run(folder: Path) -> None:
    """Print one finished run: teacher, control when there is one beside it, student; and where everything is."""
    run = results.read(folder, "run")
    rows: list[tuple[str, Sequence[Results]]] = [("control (alpha=1)" if run["is_control"] else "distilled", [run])]
    steps = [(name, [results.read(folder / "steps" / name, "run")]) for name in run.get("steps", [])]
    rows[:0] = steps
    control = None if run["is_control"] else find_control(run, folder.parent)
    if control is not None:
        rows.insert(0, ("control (alpha=1)", [control]))
    console = _console()
    console.print("\ntest split in %, best epoch by validation accuracy")
    console.print(_table(run.get("teacher"), rows))
    _judge_teacher(console, run.get("teacher"), [control] if control else [])
    console.print(f"run folder    {folder}", soft_wrap=True)
    console.print(f"figures       {folder / 'figures'}", soft_wrap=True)
    if run.get("wandb"):
        console.print(f"look at it    wandb leet {shlex.quote(str(folder / 'wandb'))}", soft_wrap=True)
    console.print(f"test again    kdexp-eval {results.argument('run', folder)}", soft_wrap=True)


def show_sweep(folder: Path) -> None:
    """Print the completed runs of a sweep, seeds of one setting together.

    Args:
        folder: the sweep's folder, with a run folder for each job.
    """
    runs = [results.read(path.parent, "sweep") for path in sorted(folder.glob(f"*/{results.FILE}"))]
    completed = [run for run in runs if run["status"] == "completed"]
    console = _console()
    groups: dict[str, list[Results]] = {}
    for run in completed:
        groups.setdefault(_label(run), []).append(run)
    teacher = next((run["teacher"] for run in completed if run.get("teacher")), None)
    ordered = sorted(groups.items(), key=lambda item: (not item[1][0]["is_control"], item[0]))
    if ordered:
        controls = {(run["control_fingerprint"], run["seed"]): run for run in completed if run["is_control"]}
        console.print("\ntest split in %, best epoch by validation accuracy; mean ± std over seeds")
        console.print(_table(teacher, ordered, controls))
        _judge_teacher(console, teacher, list(controls.values()))
    console.print(f"run folders   {folder}/*", soft_wrap=True)
    console.print(f"figures       {folder}/*/figures/*.png", soft_wrap=True)


def find_control(run: Results, folder: Path) -> Results | None:
    """The control of a run among the run folders in a folder: same student, data, recipe and seed, alpha = 1."""
    for path in folder.glob(f"*/{results.FILE}"):
        try:
            other = results.read(path.parent, "control")
        except ValueError:  # somebody else's, or damaged: not a control, and no reason to fail a run that is done
            continue
        is_same = other["control_fingerprint"] == run["control_fingerprint"]
        if other["status"] == "completed" and other["is_control"] and is_same:
            return other
    return None


def _console() -> Console:
    # Into a file or a pipe a table is written as wide as it is.
    return Console() if sys.stdout.isatty() else Console(width=160)


def _judge_teacher(
    console: Console, teacher: Mapping[str, Mapping[str, float]] | None, controls: Sequence[Results]
) -> None:
    if not teacher or not controls:
        return
    alone = statistics.fmean(control["metrics"]["val"]["best"]["acc"] for control in controls)
    if teacher["val"]["acc"] < alone:
        console.print("warning: on val the teacher is worse than the student trained alone")


def _label(run: Results) -> str:
    if run["is_control"]:
        return "control"
    return " ".join(["distilled", *(o for o in run["overrides"] if not o.startswith(("seed=", "experiment=")))])


def _table(
    teacher: Mapping[str, Mapping[str, float]] | None,
    rows: Iterable[tuple[str, Sequence[Results]]],
    controls: Mapping[tuple[str, int], Results] | None = None,
) -> Table:
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    for name in METRICS:
        table.add_column(name, justify="right")
    if controls:
        table.add_column("acc - control", justify="right")
    if teacher:
        table.add_row("teacher", *(_percent([teacher["test"].get(name)]) for name in METRICS))
    for label, runs in rows:
        test = [run["metrics"]["test"]["best"] for run in runs]
        cells = [_percent([metrics.get(name) for metrics in test]) for name in METRICS]
        if controls:
            cells.append(_paired(runs, controls))
        table.add_row(f"{label}  n={len(runs)}" if len(runs) > 1 else label, *cells)
    return table


def _paired(runs: Sequence[Results], controls: Mapping[tuple[str, int], Results]) -> str:
    """Mean ± std over seeds of the difference to the control of the same seed."""
    if runs[0]["is_control"]:
        return ""
    differences = [
        run["metrics"]["test"]["best"]["acc"] - control["metrics"]["test"]["best"]["acc"]
        for run in runs
        if (control := controls.get((run["control_fingerprint"], run["seed"])))
    ]
    return _percent(differences, sign=True) if differences else "no control"


def _percent(values: Sequence[float | None], sign: bool = False) -> str:
    known = [100 * value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):+.2f}" if sign else f"{statistics.fmean(known):.2f}"
    return f"{mean} ± {statistics.stdev(known):.2f}" if len(known) > 1 else mean
