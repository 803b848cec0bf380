"""What the report page is made of: sections with figures, a table and failed runs; cards on the first screen."""

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from kdexp.report import glossary
from kdexp.report.plotly_figures.drawing import Plot
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import Paired
from kdexp.report.summary_text import interval

Row = TypeVar("Row", contravariant=True)

INTERVAL = "95 % t interval"
"""The head of the columns of `gain_interval`."""


@dataclass(frozen=True)
class Figure:
    """One drawing.

    Attributes:
        title: above it.
        plot: what Plotly draws.
    """

    title: str
    plot: Plot


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        title: above it.
        alternative: what it shows, in words.
        png: the file's bytes.
    """

    title: str
    alternative: str
    png: bytes

    @property
    def address(self) -> str:
        """The picture itself as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Cell:
    """What stands in a table, and what it is sorted by: the text where that is None."""

    text: str
    value: object = None


@dataclass(frozen=True)
class Heading:
    """The head of a column.

    Attributes:
        name: what stands there.
        kind: numbers stand right, words left; a command is something to copy.
    """

    name: str
    kind: Literal["", "word", "command"]


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table: its head, and what it shows of a row.

    Attributes:
        name: the head.
        cell: what stands in a row.
        kind: of what it holds, see `Heading`; a number unless given.
    """

    name: str
    cell: Callable[[Row], Cell | str]
    kind: Literal["", "word", "command"] = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and filtered when it has many rows; see `tabulate`.

    Attributes:
        headings: a column each.
        rows: a cell a column.
        notes: lines below it.
    """

    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def tabulate(columns: Sequence[Column[Row]], rows: Iterable[Row], notes: Sequence[str] = ()) -> Table:
    """A table of some rows."""

    def as_cell(content: Cell | str) -> Cell:
        return Cell(content) if isinstance(content, str) else content

    headings = [Heading(column.name, column.kind) for column in columns]
    return Table(headings, [[as_cell(column.cell(row)) for column in columns] for row in rows], notes)


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
        picture: shown above the table.
        wide: whether its figures stand below each other.
    """

    name: str
    title: str
    lead: str
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    table: Table | None = None
    failures: Sequence[Failure] = ()
    picture: Picture | None = None
    wide: bool = False


def number(value: float | None, name: str) -> Cell:
    """A metric's value as it is shown; empty where it is not known."""
    return Cell("") if value is None else Cell(glossary.known(name).number(value), value)


def metric(group: RunGroup | None, name: str, split: str = "test", epoch: str = "best") -> Cell:
    """A metric's mean, and its standard deviation where there are several seeds; empty where it is not known."""
    mean = group.mean(name, split, epoch) if group else None
    std = group.std(name, split, epoch) if group else None
    return Cell("") if mean is None else Cell(glossary.known(name).spread(mean, std), mean)


def gain_mean(gain: Paired | None, measure: str) -> Cell:
    """A mean difference in the measure."""
    return Cell("") if gain is None else Cell(glossary.known(measure).number(gain.mean, sign=True), gain.mean)


def gain_interval(gain: Paired | None, measure: str) -> Cell:
    """The interval of a mean difference; where there is none, why."""
    if gain is None:
        return Cell("")
    return Cell(interval(gain, glossary.known(measure)), gain.interval[0] if gain.interval else None)
