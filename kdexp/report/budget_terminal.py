"""The end of a sweep over a family of students with a budget: a table, a figure, and the student to take."""

from collections.abc import Collection
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from kdexp.report.budget_choice import choice_of
from kdexp.report.budget_table import columns
from kdexp.report.comparison import Comparison
from kdexp.report.elements import tabulate
from kdexp.report.png_figures.front import front
from kdexp.report.runs import find
from kdexp.terminal import screen

PICTURE = "budget.png"


def show_budget(folder: Path, names: Collection[str]) -> None:
    """Print the family, those left out among them, and last the sentence; draw the front in the sweep's folder.

    Args:
        folder: the sweep's.
        names: of the run folders of the students that fit.
    """
    choice = choice_of(Comparison([run for run in find([folder])[0] if run.folder.name in names]))
    if choice is None:
        return
    console = screen()
    found = tabulate(columns(choice), choice.students)
    table = Table(box=SIMPLE)
    for heading in found.headings:
        table.add_column(heading.name, justify="left" if heading.kind else "right", no_wrap=heading.name == "student")
    for row in found.rows:
        table.add_row(*(cell.text for cell in row))
    console.print(table)
    console.print(choice.how, highlight=False, soft_wrap=True)
    front(choice, folder / PICTURE)
    console.print(f"front         {folder / PICTURE}", soft_wrap=True, highlight=False)
    if said := choice.sentence():
        console.print(said, highlight=False, soft_wrap=True)
