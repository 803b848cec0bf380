"""Every configuration, its metrics and its gain over the control."""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import (
    INTERVAL,
    Cell,
    Column,
    Figure,
    Section,
    Table,
    gain_interval,
    gain_mean,
    metric,
    tabulate,
)
from kdexp.report.plotly_figures.gains import gains
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import FEWEST_SEEDS


def sections(comparison: Comparison) -> Iterator[Section]:
    """The gains as a figure, and everything as a table."""
    if not comparison.groups:
        return
    plot, name = gains(comparison), glossary.known(comparison.measure).name
    lead = (
        f"Test {name} less that of the control with the same seed; ticks are seeds, lines 95 % t intervals over "
        f"them ({FEWEST_SEEDS} seeds or more). The order is that of the choice on val: the uppermost is chosen."
        if plot
        else "There is no control (alpha=1) with the same seeds: no gain can be given."
    )
    figures = {"": [Figure("Gain over the control", plot)]} if plot else {}
    yield Section("settings", "Every configuration", lead, figures, _table(comparison), wide=True)


def _table(comparison: Comparison) -> Table:
    measure = comparison.measure
    name = glossary.known(measure).column
    columns = [
        Column[RunGroup]("configuration", comparison.marked, "word"),
        Column[RunGroup]("n", lambda group: Cell(str(len(group.runs)), len(group.runs))),
        Column[RunGroup](f"val {name}", lambda group: metric(group, measure, "val")),
        Column[RunGroup](f"test {name}", lambda group: metric(group, measure)),
        Column[RunGroup](f"test {name}, last epoch", lambda group: metric(group, measure, epoch="last")),
        *map(_on_test, glossary.beside(measure)),
        Column[RunGroup]("gain", lambda group: gain_mean(group.gain, measure)),
        Column[RunGroup](INTERVAL, lambda group: gain_interval(group.gain, measure)),
        Column[RunGroup]("p", _p),
    ]
    return tabulate(columns, comparison.groups)


def _on_test(name: str) -> Column[RunGroup]:
    return Column[RunGroup](f"test {glossary.known(name).column}", lambda group: metric(group, name))


def _p(group: RunGroup) -> Cell:
    p = group.gain.p if group.gain else None
    return Cell("") if p is None else Cell(f"{p:.3g}", p)
