"""docs/figures/method_results.png: what each searched method gains over the control. See method_table.py."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from table_cells import PROBLEMS, Problem
from table_page import Compared, compared, rows_of

from kdexp.report.colors import BLUE, GRAY, ORANGE
from kdexp.report.png_figures.drawing import new_figure

_COLORS = {"better": BLUE, "worse": ORANGE, "not significant": GRAY}


def drawn(tables: Path) -> Figure:
    """The mean gain of each method that is whole with its 95 % interval over seeds, a panel a data set."""
    figure = new_figure(9.6, 3.8)
    panels = figure.subplots(1, len(PROBLEMS))
    for axes, (name, rows) in zip(panels, rows_of(tables).items(), strict=True):
        found = compared([row for row in rows if row.method.part == "tuned"])
        _draw(axes, PROBLEMS[name], [one for one in found if one.gain])
    marks = [Line2D([], [], color=color, marker="o", linestyle="", label=word) for word, color in _COLORS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return figure


def _draw(axes: Axes, problem: Problem, found: list[Compared]) -> None:
    for place, one in enumerate(found):
        assert one.gain is not None
        mean, (low, high) = one.gain.mean, one.gain.interval or (one.gain.mean, one.gain.mean)
        color = _COLORS.get(one.verdict, GRAY)
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color=color, marker="o", capsize=3)
    axes.axvline(0, color=GRAY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(found)), [one.row.method.name for one in found])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.25)
    axes.set(title=problem.title, xlabel="points of test accuracy above the tuned control")
