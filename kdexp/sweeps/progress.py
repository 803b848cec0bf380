"""What a person sees of a sweep: while it runs, and at its end."""

import re
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.box import SIMPLE
from rich.console import Group
from rich.live import Live
from rich.progress import track
from rich.table import Table
from rich.text import Text

from kdexp import results
from kdexp.config.untrusted import printable
from kdexp.naming import job_names
from kdexp.progress_log import EVERY_SECONDS, duration
from kdexp.report import glossary
from kdexp.report.comparison import order_of_choice
from kdexp.sweeps.sweep import State
from kdexp.terminal import Screen, screen

Cell = TypeVar("Cell")

if TYPE_CHECKING:
    from kdexp.sweeps.optuna_study import Trial

_MOST_ROWS = 20  # of the live table: a hundred jobs must not push it out of the terminal
_WIDEST = 48  # of what a job does, in the live table
_SHORTEST = 24  # of the name of a job, in the live table
_MOST_LINES = 4  # elsewhere, of what runs
_BEST_ROWS = 10  # of the trials of a search
_LOG_HEAD = re.compile(r"(\[[^]]*\]){3} ")  # time, module and level of a line in a log
_WAITS = "waiting for another process"  # what `kdexp.teacher` says when the teacher is being trained


class Progress:
    """A table that is kept up to date in a terminal; elsewhere a line when a job starts, waits or ends.

    Args:
        folder: the sweep's.
        opening: the first line, where there is no terminal.
        to_come: gives the number of jobs that are not known yet.
    """

    def __init__(self, folder: Path, opening: str, to_come: Callable[[], int] = lambda: 0) -> None:
        self._console = Screen()
        self._opening = opening
        self._to_come = to_come
        self._folder = folder
        self._live: Live | None = None
        self._said: dict[int, str] = {}
        self._said_at = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self, states: Sequence[State]) -> None:
        """Show what has become of the jobs."""
        if self._live is not None:
            self._live.update(self._table(states), refresh=True)
        else:
            self._lines(states)

    def _table(self, states: Sequence[State]) -> Group:
        labels = settings(states, max(_SHORTEST, self._console.width // 3))
        table = Table(box=SIMPLE)
        known = {state.measure for state in states if state.measure}
        value = _on_val(next(iter(known), None)) if len(known) < 2 else "val"
        for name in ("job", "", "epoch", value, "time", "settings"):
            table.add_column(name, justify="right" if name in ("job", "epoch", value, "time") else "left")
        shown = [state for state in states if state.status == "running" or state.has_failed]
        for state in shown[:_MOST_ROWS]:
            what = state.status
            if what == "running" and not state.epoch:  # its teacher is being trained, most likely
                doing = _doing(state)
                what = "waits for the teacher" if _WAITS in doing else doing[:_WIDEST]
            table.add_row(
                str(state.number),
                Text(printable(what), style="red" if state.has_failed else "cyan"),
                f"{state.epoch}/{state.job.epochs}" if state.job.epochs else str(state.epoch),
                _number(state.val_acc, state.measure),
                _time(state.seconds),
                Text(printable(labels[state.number]), overflow="ellipsis", no_wrap=True),
            )
        hidden = len(shown) - _MOST_ROWS
        rest = [Text(f"  and {hidden} more")] if hidden > 0 else []
        return Group(Text(printable(f"{self._folder.name}  {self._title(states)}")), table, *rest)

    def _title(self, states: Sequence[State]) -> str:
        to_come = self._to_come()
        finished = sum(state.status not in ("waiting", "running") for state in states)
        done = f"{finished}/{len(states) + to_come} finished"
        parts = [done, _counts(states), *([f"{to_come} to come"] if to_come else [])]
        measured = [state for state in states if state.val_acc is not None]
        if len({state.measure for state in measured}) == 1:
            best = _best(measured)
            value = _number(best.val_acc, best.measure)
            parts.append(f"best {_on_val(best.measure)} {value} ({settings(states)[best.number]})")
        left = seconds_left(states, to_come)
        if left:
            parts.append(f"about {_time(left)} left")
        return ", ".join(parts)

    def _lines(self, states: Sequence[State]) -> None:
        labels = settings(states)
        if self._opening:
            done = sum(state.status == "completed" for state in states)
            self._say(self._opening + (f", {done} completed before" if done else ""))
            self._opening = ""
            self._said = {state.number: state.status for state in states if state.status != "running"}
        for state in states:
            waits = state.status == "running" and _WAITS in _doing(state)
            status = "waits for the teacher that another job trains" if waits else state.status
            if self._said.get(state.number) == status or state.status == "waiting":
                continue
            self._said[state.number] = status
            line = f"job {state.number} {status}"
            if state.status == "completed":
                line += f" in {_time(state.seconds)}, {_on_val(state.measure)} {_number(state.val_acc, state.measure)}"
            line += f": {labels[state.number]}"
            if state.has_failed or state.status == "pruned":
                line += f": {state.error}"
            if state.status != "running":
                line += f"  [{self._title(states)}]"
            self._say(line)
        if time.monotonic() - self._said_at >= EVERY_SECONDS:
            self._say_what_runs(states)

    def _say_what_runs(self, states: Sequence[State]) -> None:
        """The last lines of the logs of what runs; of jobs in one process, which have the same, only the first's."""
        doing: dict[str, int] = {}
        for state in states:
            if state.status == "running":
                doing.setdefault(_doing(state), state.number)
        for line, number in list(doing.items())[:_MOST_LINES]:
            self._say(f"job {number}: {line}")

    def _say(self, line: str) -> None:
        self._said_at = time.monotonic()
        self._console.print(line, soft_wrap=True, highlight=False)
        sys.stdout.flush()


def _on_val(measure: str | None) -> str:
    """What the metric that runs are compared by is called on val."""
    return f"val {glossary.known(measure or 'acc').column}"


def _doing(state: State) -> str:
    """What a job that runs does, by its log."""
    return _LOG_HEAD.sub("", state.log_tail[-1]) if state.log_tail else "starting"


def composing(cells: Sequence[Cell]) -> Iterable[Cell]:
    """The combinations of a sweep, one after the other; in a terminal with a bar, since each takes Hydra a while."""
    console = Screen()
    return track(cells, "reading the settings", console=console, transient=True, disable=not console.is_terminal)


def show_trials(
    trials: Sequence["Trial"], best: Sequence["Trial"], metric: str, importance: Mapping[str, float], whose: str = ""
) -> None:
    """Print the best trials of a search, what became of the others, and which settings matter.

    Args:
        trials: all of them.
        best: the completed ones, the best first.
        metric: that they are chosen by.
        importance: of each setting.
        whose: what is searched for, as `` of the control``.
    """
    console = screen()
    count = Counter(trial.status for trial in trials)
    others = "".join(f", {number} {status}" for status, number in count.items() if status != "completed")
    console.print(f"\nthe best of {len(best)} completed trials{whose}{others}, by {metric} of the best epoch")
    table = Table(box=SIMPLE)
    for name in ("trial", metric, "settings"):
        table.add_column(name, justify="left" if name == "settings" else "right")
    for place, trial in enumerate(best[:_BEST_ROWS]):
        point = " ".join(f"{key}={value}" for key, value in trial.point.items())
        mark = " (chosen)" if place == 0 and len(best) > 1 else ""
        table.add_row(str(trial.number), f"{trial.value:.4f}", point + mark)
    console.print(table)
    places = [order_of_choice(trial.value, trial.nll) for trial in best]
    tied = [trial for trial, place in zip(best, places, strict=True) if place[0] == places[0][0]][1:]
    if tied:
        numbers = ", ".join(str(trial.number) for trial in tied)
        reason = "lower val NLL" if places[0] != places[1] else "being the first"
        console.print(f"trial {best[0].number} is tied on {metric} with {numbers}: chosen by {reason}", soft_wrap=True)
    if importance:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in importance.items())
        console.print(f"what matters  {shares}", soft_wrap=True, highlight=False)


def show_left(folder: Path, states: Sequence[State], command: str) -> None:
    """Print what did not complete, why, and how to go on; nothing when all is done."""
    console = screen()
    left = [state for state in states if state.status not in ("completed", "pruned")]
    if not left:
        return
    labels = settings(states)
    console.print(f"\n{len(left)} of {len(states)} jobs did not complete: {_counts(left)}")
    explained = [state for state in left if state.has_failed or state.error]
    if explained:
        table = Table(box=SIMPLE)
        for name in ("job", "status", "settings", "reason"):
            table.add_column(name, overflow="fold")
        for state in explained:
            table.add_row(str(state.number), state.status, labels[state.number], state.error or "")
        console.print(table)
    for state in explained:
        log_file = folder / state.job.folder / results.LOG
        console.print(f"log of job {state.number}: {log_file}", soft_wrap=True, highlight=False)
    if any(state.job.trial is None or state.status != "diverged" for state in left):  # such a trial is done
        console.print(f"run again     {command}", soft_wrap=True, highlight=False)


def settings(states: Sequence[State], longest: int = 160) -> dict[int, str]:
    """What makes each job differ from the others, by its number; see `kdexp.naming.job_names`."""
    names = job_names([state.job.overrides for state in states], longest)
    return {state.number: name for state, name in zip(states, names, strict=True)}


def seconds_left(states: Sequence[State], to_come: int = 0) -> float | None:
    """How long a sweep will take yet, by what its jobs took so far; None before there is anything to go by.

    Args:
        states: of the jobs that are known.
        to_come: how many are not.
    """
    took = [state.seconds for state in states if state.status in ("completed", "pruned") and state.seconds]
    running = [state for state in states if state.status == "running" and state.seconds]
    took = took or [
        state.seconds / state.epoch * state.job.epochs
        for state in running
        if state.epoch and state.seconds and state.job.epochs
    ]
    if not took:
        return None
    mean = statistics.fmean(took)
    waiting = sum(state.status == "waiting" for state in states) + to_come
    rest = sum(max(mean - (state.seconds or 0), 0) for state in running)
    return (waiting * mean + rest) / max(len(running), 1)


def _counts(states: Sequence[State]) -> str:
    count = Counter(state.status for state in states)
    return ", ".join(f"{number} {status}" for status, number in count.most_common())


def _number(value: float | None, measure: str | None) -> str:
    metric = glossary.known(measure or "acc")
    return "" if value is None else metric.in_unit(metric.number(value))


def _best(states: Sequence[State]) -> State:
    is_less = glossary.known(states[0].measure or "acc").lower_is_better
    return (min if is_less else max)(states, key=lambda state: state.val_acc or 0)


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def command_line(arguments: Sequence[str]) -> str:
    """A command as it is to be typed again."""
    return shlex.join([Path(arguments[0]).name, *(a for a in arguments[1:] if not a.startswith("rerun="))])
