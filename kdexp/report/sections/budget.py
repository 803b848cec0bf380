"""Which student fits the budget?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.budget import UNITS
from kdexp.report.budget_choice import choice_of
from kdexp.report.budget_table import columns
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section, tabulate
from kdexp.report.plotly_figures.front import TITLES, front, where


def sections(comparison: Comparison) -> Iterator[Section]:
    """The students of a family over what they take, those left out among the rows."""
    choice = choice_of(comparison)
    if choice is None:
        return
    title = glossary.known(comparison.measure).title
    figures = [
        Figure(f"{title} {where(axis)} over {TITLES[unit]}", plot)
        for axis in dict.fromkeys([None, choice.budget.robustness])
        for unit in UNITS
        if (plot := front(choice, unit, axis))
    ]
    lead = (
        f"{choice.sentence()} The line joins the students that none beats on val that takes no more; bars are "
        f"95 % intervals over seeds. {choice.how}"
    )
    table = tabulate(columns(choice), choice.students)
    yield Section("budget", "Which student fits the budget?", lead.strip(), {"": figures}, table)
