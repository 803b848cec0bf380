"""What did the student keep, and what did it lose?"""

from collections.abc import Iterator

from kdexp.report import loss_statement
from kdexp.report.comparison import Comparison
from kdexp.report.elements import INTERVAL, Cell, Column, Section, tabulate
from kdexp.report.glossary import capitalized
from kdexp.report.loss_statement import Line
from kdexp.report.loss_statement_text import RULES, TITLE, headline, interval, method, sentences

_COLUMNS = [
    Column[Line]("metric", lambda line: line.metric.name, "word"),
    Column[Line]("student", lambda line: Cell(line.metric.number(line.student), line.student)),
    Column[Line]("control", lambda line: Cell(line.metric.number(line.control), line.control)),
    Column[Line](
        "student - control",
        lambda line: Cell(line.metric.number(line.difference.mean, sign=True), line.difference.mean),
    ),
    Column[Line](INTERVAL, interval),
    Column[Line]("p (Holm)", lambda line: "" if line.p is None else Cell(f"{line.p:.2g}", line.p)),
    Column[Line]("verdict", lambda line: line.verdict, "word"),
]


def sections(comparison: Comparison) -> Iterator[Section]:
    """The loss statement of the chosen configuration, where it has a control."""
    statement = loss_statement.of_comparison(comparison)
    if statement is not None:
        said = (f"{heading}: {' '.join(lines)}" for heading, lines in sentences(statement).items())
        lead = "\n".join([f"{statement.label}: {headline(statement)}.", *said])
        notes = [method(statement), *(f"{capitalized(verdict)}: {rule}" for verdict, rule in RULES.items())]
        table = tabulate(_COLUMNS, [*statement.lines, *statement.classes], notes)
        yield Section("loss-statement", TITLE, lead, table=table, wide=True)
