"""What the runs are compared by, and gain, along a condition of the training data."""

from kdexp.report import glossary
from kdexp.report.colors import CLASSES, CONTROL, TEACHER
from kdexp.report.condition_curves import ConditionCurve, ConditionLine
from kdexp.report.plotly_figures.drawing import Plot, layout_over, line_trace
from kdexp.report.statistics import Estimate, Point


def condition(curve: ConditionCurve) -> Plot:
    """The measure on test of teacher, control and students along a condition of the data, with 95 % intervals."""
    teacher = [Point(level, Estimate(value)) for level, value in curve.teacher.items()]
    metric = glossary.known(curve.measure)
    data = [line_trace("teacher", TEACHER, teacher, dash="dot", metric=metric)]
    data += [line_trace(line.label, color, line.points(), metric=metric) for line, color in _colored(curve)]
    return {"data": data, "layout": layout_over(curve.axis, metric.axis(f"{metric.name} on test"))}


def condition_gains(curve: ConditionCurve) -> Plot | None:
    """The students' gains over the control along a condition, paired by seed, with 95 % intervals."""
    metric, lines = glossary.known(curve.measure), _colored(curve)
    data = [
        line_trace(line.label, color, gains, metric=metric) for line, color in lines if (gains := line.gain_points())
    ]
    if not data:
        return None
    layout = layout_over(curve.axis, metric.axis_of_gains("gain over the control"))
    layout["yaxis"]["zeroline"] = True
    return {"data": data, "layout": layout}


def _colored(curve: ConditionCurve) -> list[tuple[ConditionLine, str]]:
    controls = [(curve.control, CONTROL)] if curve.control else []
    return controls + [(line, CLASSES[place % len(CLASSES)]) for place, line in enumerate(curve.students)]
