"""Every run, with its config values, its metrics and the command that started it."""

from collections.abc import Iterator
from typing import Literal

from kdexp.report import glossary
from kdexp.report.comparison import Comparison, depends_on, plain
from kdexp.report.elements import Cell, Column, Section, Table, number, tabulate
from kdexp.report.runs import Run


def sections(comparison: Comparison) -> Iterator[Section]:
    """The table; it is there even when every run failed."""
    metric = glossary.known(comparison.measure)
    values = glossary.capitalized(metric.values)
    lead = f"{values}{metric.said_in}; the best epoch is chosen on val, by the metric in trainer.monitor."
    if comparison.repeated:
        lead += (
            f" Of runs with the same configuration and seed the last one counts; {len(comparison.repeated)} others are "
            "seen here alone."
        )
    yield Section("runs", "Every run", lead, table=_table(comparison), wide=True)


def _table(comparison: Comparison) -> Table:
    measure, name = comparison.measure, glossary.known(comparison.measure).column
    axes = [axis for axis in comparison.axes if any(axis in run.settings for run in comparison.runs)]
    columns = [
        Column[Run]("run", lambda run: run.folder.name, "word"),
        *(_axis(axis, comparison) for axis in axes),
        Column[Run]("seed", lambda run: _value(run, "seed")),
        Column[Run]("status", lambda run: run.status, "word"),
        Column[Run](f"val {name}", lambda run: number(run.metric(measure, "val"), measure)),
        Column[Run](f"test {name}", lambda run: number(run.metric(measure), measure)),
        Column[Run](f"test {name}, last epoch", lambda run: number(run.metric(measure, "test", "last"), measure)),
        Column[Run]("best epoch", _best_epoch),
        Column[Run]("seconds", _seconds),
        Column[Run]("command", lambda run: run.command or "(started from Python)", "command"),
    ]
    return tabulate(columns, comparison.runs)


def _axis(name: str, comparison: Comparison) -> Column[Run]:
    holds_words = any(isinstance(run.settings.get(name), str) for run in comparison.runs)
    kind: Literal["", "word"] = "word" if holds_words else ""
    return Column[Run](name, lambda run: _value(run, name), kind)


def _value(run: Run, key: str) -> Cell:
    """A config value; empty where it has no part in the run."""
    value = run.settings.get(key)
    has_no_part = key != "alpha" and not depends_on(run, key)
    return Cell("") if value is None or has_no_part else Cell(plain(value), value)


def _best_epoch(run: Run) -> Cell:
    best = run.results.get("epochs", {}).get("best")
    return Cell("") if best is None else Cell(str(best), best)


def _seconds(run: Run) -> Cell:
    seconds = run.results.get("cost", {}).get("seconds", {}).get("total")
    return Cell("") if seconds is None else Cell(f"{seconds:.1f}", seconds)
