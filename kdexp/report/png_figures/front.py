"""The family of a budget: what its students are compared by, over what they take."""

from pathlib import Path

from matplotlib.axes import Axes

from kdexp.report import glossary
from kdexp.report.budget import UNITS
from kdexp.report.budget_choice import Choice
from kdexp.report.colors import BLUE, GRAY, GREEN, MARKED_ROLES
from kdexp.report.plotly_figures.front import TITLES
from kdexp.report.png_figures.drawing import in_unit, new_figure, save
from kdexp.report.statistics import Estimate


def front(choice: Choice, path: Path) -> None:
    """Draw controls, distilled students and teacher over bytes and latency, the front by val and the budget.

    Bars are 95 % intervals over seeds; fewer than three have none.

    Args:
        choice: of the sweep.
        path: the PNG file.
    """
    figure = new_figure(10.4, 4.4)
    metric = glossary.known(choice.comparison.measure)
    panels = figure.subplots(1, len(UNITS), sharey=True)
    for axes, unit in zip(panels, UNITS, strict=True):
        _draw(axes, choice, unit)
        axes.set(xlabel=TITLES[unit], title=f"{metric.name} on test")
        in_unit(axes, metric)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    save(figure, path)


def _draw(axes: Axes, choice: Choice, unit: str) -> None:
    comparison, on_front = choice.comparison, choice.front(unit)
    trained = [student for student in choice.students if not student.left_out]
    roles = {"control": "trained alone", "student": "distilled"}
    for role, label in roles.items():
        points = [(one.taken.of(unit), found) for one in trained if (found := choice.reached(one, role))]
        _points(axes, points, *MARKED_ROLES[role], label)
    teachers = [
        (choice.budget.teachers[name].of(unit), Estimate(comparison.of_teacher(teacher).value))
        for name, teacher in comparison.teachers.items()
        if name in choice.budget.teachers
    ]
    _points(axes, teachers, *MARKED_ROLES["teacher"], "teacher")
    line = [(one, found.value) for one in on_front if (found := choice.reached(one, "student"))]
    places = [(one.taken.of(unit), value) for one, value in line]
    axes.plot([x for x, _ in places], [y for _, y in places], color=BLUE, linewidth=1, label="front, chosen on val")
    for (student, _), place in zip(line, places, strict=True):
        name = axes.annotate(student.taken.name, place, xytext=(4, -4), textcoords="offset points", fontsize=7)
        name.set(rotation=-35, rotation_mode="anchor", verticalalignment="top")
    stars = {choice.best_of_half: ("with half of the budget", GREEN), choice.best: ("to take", BLUE)}
    for one, (word, color) in stars.items():
        if one and (found := choice.reached(one, "student")):
            place = one.taken.of(unit), found.value
            axes.plot(*place, marker="*", markersize=13, color=color, linestyle="", label=word)
    if unit in choice.budget.limits:
        axes.axvline(choice.budget.limits[unit], color=GRAY, linestyle=":", label="budget")
    axes.set_xscale("log")
    axes.grid(alpha=0.25)


def _points(axes: Axes, points: list[tuple[float, Estimate]], color: str, marker: str, label: str) -> None:
    ends = [estimate.interval or (estimate.value, estimate.value) for _, estimate in points]
    values = [estimate.value for _, estimate in points]
    bars = (
        [value - low for value, (low, _) in zip(values, ends, strict=True)],
        [high - value for value, (_, high) in zip(values, ends, strict=True)],
    )
    axes.errorbar(
        [x for x, _ in points],
        values,
        bars,
        color=color,
        marker=marker,
        markersize=4.5,
        linestyle="",
        capsize=2,
        label=label,
    )
