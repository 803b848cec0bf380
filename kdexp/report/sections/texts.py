"""Which test texts do teacher, control and student classify differently?"""

from collections.abc import Iterator, Sequence

from kdexp.report import text_examples
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Column, Section, Table, tabulate
from kdexp.report.example_files import evenly_spaced
from kdexp.report.examples_of_runs import of_first_seed
from kdexp.report.text_examples import TextExample

SHOWN = 12
"""Texts in the table at most."""


def sections(comparison: Comparison) -> Iterator[Section]:
    """The table, where the runs keep texts."""
    unread: list[str] = []
    seed, examples = of_first_seed(
        comparison, lambda folder: text_examples.read(folder, len(comparison.class_names)), unread
    )
    if not examples and not unread:
        return
    lead, table = "No run keeps texts that can be shown.", None
    if examples:
        differing = [example for example in examples if len(set(example.predictions.values())) > 1]
        shown = [differing[place] for place in evenly_spaced(len(differing), SHOWN)]
        lead = (
            f"The networks classify {len(differing)} of {len(examples)} test texts differently, at the best epoch by "
            f"validation, seed {seed}{_gained(examples)}. Of these at most {SHOWN} are shown, evenly spaced; ✗: wrong."
        )
        table = _table(shown, list(examples[0].predictions), comparison.class_names) if shown else None
    lead = "\n".join([lead, *(f"left out: {line}" for line in unread)])
    yield Section("texts", "Test texts on which the networks disagree", lead, table=table)


def _gained(examples: Sequence[TextExample]) -> str:
    if "control" not in examples[0].predictions:
        return ""
    right = [
        tuple(example.predictions[name] == example.truth for name in ("student", "control")) for example in examples
    ]
    won, lost = right.count((True, False)), right.count((False, True))
    return f": the student alone is right on {won}, the control alone on {lost}"


def _table(examples: Sequence[TextExample], networks: Sequence[str], classes: Sequence[str]) -> Table:
    def of_network(name: str) -> Column[TextExample]:
        def cell(example: TextExample) -> str:
            found = example.predictions[name]
            return f"{'' if found == example.truth else '✗ '}{classes[found]}"

        return Column(name, cell, "word")

    columns: list[Column[TextExample]] = [
        Column("test text", lambda example: str(example.sample)),
        Column("text", lambda example: example.text, "word"),
        Column("truth", lambda example: classes[example.truth], "word"),
        *map(of_network, networks),
    ]
    return tabulate(columns, examples)
