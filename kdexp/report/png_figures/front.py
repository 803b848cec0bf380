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
    shown = {"control": [], "student": []}
    for student in choice.students:
        for role, group in (("control", student.control), ("student", student.distilled)):
            estimate = group.estimate(comparison.measure) if group else None
            if estimate is not None and not student.left_out:
                shown[role].append((student.taken.of(unit), estimate))
            if estimate is not None and role == "student" and student in on_front:
                place = (student.taken.of(unit), estimate.value)
                axes.annotate(student.taken.name, place, xytext=(4, -9), textcoords="offset points", fontsize=7)
    shown["teacher"] = [
        (choice.budget.teachers[name].of(unit), Estimate(comparison.of_teacher(teacher).value))
        for name, teacher in comparison.teachers.items()
        if name in choice.budget.teachers
    ]
    names = {"control": "trained alone", "student": "distilled", "teacher": "teacher"}
    for role, points in shown.items():
        color, marker = MARKED_ROLES[role]
        _points(axes, points, color, marker, names[role])
    line = [
        (student.taken.of(unit), mean)
        for student in on_front
        if student.distilled and (mean := student.distilled.mean(comparison.measure)) is not None
    ]
    axes.plot([x for x, _ in line], [y for _, y in line], color=BLUE, linewidth=1, label="front, chosen on val")
    if unit in choice.budget.limits:
        axes.axvline(choice.budget.limits[unit], color=GRAY, linestyle=":", label="budget")
    for student, color in ((choice.best_of_half, GREEN), (choice.best, BLUE)):
        if student and student.distilled and (mean := student.distilled.mean(comparison.measure)) is not None:
            word = "to take" if student is choice.best else "with half of the budget"
            axes.plot(student.taken.of(unit), mean, marker="*", markersize=13, color=color, linestyle="", label=word)
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
