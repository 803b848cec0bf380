"""The family of a budget: what its students are compared by, over what they take."""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.budget import UNITS
from kdexp.report.budget_choice import Choice
from kdexp.report.colors import DARK_GRAY, WINNER
from kdexp.report.plotly_figures.costs import Network, over_cost
from kdexp.report.plotly_figures.drawing import Plot

TITLES = {"bytes": "bytes of the ONNX file", "latency_ms": "milliseconds of a call with one sample"}


def where(axis: str | None) -> str:
    """On what the students are shown."""
    return f"under {axis}" if axis else "on test"


def front(choice: Choice, unit: str, axis: str | None = None) -> Plot | None:
    """Controls, distilled students and teacher over bytes or latency, the front by val as a line, and the budget.

    Args:
        choice: of the sweep.
        unit: one of `kdexp.report.budget.UNITS`.
        axis: of the robustness report, for the mean under its conditions; None: clean test data.
    """
    networks = [*_networks(choice, unit, axis)]
    if not networks:
        return None
    metric = glossary.known(choice.comparison.measure)
    plot = over_cost(networks, TITLES[unit], metric, f"{metric.name} {where(axis)}")
    on_front = [
        (student.taken.of(unit), metric.scale * found.value)
        for student in choice.front(unit)
        if (found := choice.reached(student, "student", axis))
    ]
    lines = [("front by val", on_front, WINNER, "solid")]
    if unit in choice.budget.limits:
        heights = [metric.scale * network.estimate.value for network in networks]
        limit = [(choice.budget.limits[unit], height) for height in (min(heights), max(heights))]
        lines.append((f"budget: {choice.budget.limits[unit]:,g} {UNITS[unit]}", limit, DARK_GRAY, "dot"))
    plot["data"] = [_line(*line) for line in lines] + plot["data"]
    if unit == "bytes":
        plot["layout"]["xaxis"]["tickformat"] = "~s"
    return plot


def _line(name: str, points: list[tuple[float, float]], color: str, dash: str) -> Plot:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": color, "width": 1.5, "dash": dash},
        "hoverinfo": "skip",
    }


def _networks(choice: Choice, unit: str, axis: str | None) -> Iterator[Network]:
    comparison = choice.comparison
    for student in choice.students:
        kind = "chosen" if student is choice.best else "distilled"
        kind = "half of the budget" if kind != "chosen" and student is choice.best_of_half else kind
        for role, drawn in (("control", "control"), ("student", kind)):
            found = choice.reached(student, role, axis)
            if found and not student.left_out:
                yield Network(drawn, student.taken.name, student.taken.of(unit), found)
    for name, teacher in comparison.teachers.items():
        of_best = (
            choice.best and choice.reached(choice.best, "teacher", axis) if axis else comparison.of_teacher(teacher)
        )
        if name in choice.budget.teachers and of_best:
            yield Network("teacher", name, choice.budget.teachers[name].of(unit), of_best)
