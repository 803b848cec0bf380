"""What the runs are compared by, and gain, along a condition of the training data."""

from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes

from kdexp.report import glossary
from kdexp.report.colors import GRAY, ORANGE, STUDENTS
from kdexp.report.condition_curves import CONDITIONS, IN_RATIOS, ConditionCurve
from kdexp.report.png_figures.drawing import draw_estimates, in_unit, new_figure, save


def condition(curve: ConditionCurve, path: Path) -> None:
    """Draw the measure on test, and the gain over the control, along a condition of the training data.

    Bars are 95 % t intervals over seeds; fewer than three have none.

    Args:
        curve: of teacher, control and students.
        path: the PNG file.
    """
    figure = new_figure(9.6, 3.8)
    left, right = figure.subplots(1, 2)
    teacher = curve.teacher
    style = {"color": GRAY, "linestyle": ":", "marker": "D", "markersize": 3.5}
    left.plot(list(teacher), list(teacher.values()), label="teacher", **style)
    if curve.control:
        draw_estimates(left, curve.control.points(), ORANGE, "s", "control")
    for line, color in zip(curve.students, cycle(STUDENTS), strict=False):
        draw_estimates(left, line.points(), color, "o", line.label)
        draw_estimates(right, line.gain_points(), color, "o", line.label)
    right.axhline(0, color=GRAY, linewidth=1)
    metric = glossary.known(curve.measure)
    _scale(left, curve, f"{metric.name} on test")
    _scale(right, curve, "gain over the control, paired by seed")
    in_unit(left, metric, 0)
    in_unit(right, metric, 1, differences=True)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def _scale(axes: Axes, curve: ConditionCurve, title: str) -> None:
    axes.set(title=title, xlabel=CONDITIONS[curve.axis])
    if curve.axis in IN_RATIOS:
        axes.set_xscale("log")
        levels = sorted({level for line in curve.lines for level in line.groups})
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.minorticks_off()
    axes.grid(alpha=0.25)
