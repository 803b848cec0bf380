"""Test accuracy over what a network costs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kdexp.report.colors import CONTROL, OTHER, TEACHER, WINNER
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.drawing import Plot, error_bars
from kdexp.report.runs import Run
from kdexp.report.statistics import Estimate

# Kind of a network -> its color and Plotly's symbol; drawn in this order, the last on top.
_KINDS = {
    "distilled": (OTHER, "circle"),
    "control": (CONTROL, "square"),
    "chosen": (WINNER, "star"),
    "teacher": (TEACHER, "diamond"),
}
_TITLES = {"parameters": "parameters", "macs": "multiply-accumulates a sample", "seconds": "seconds of training"}


@dataclass(frozen=True)
class _Network:
    """One point: a teacher, or a student over its seeds."""

    kind: str
    label: str
    cost: float
    accuracy: Estimate


def costs(comparison: Comparison, measure: str) -> Plot | None:
    """Test accuracy against a cost.

    Args:
        comparison: what is compared.
        measure: ``parameters``, ``macs`` or ``seconds`` (of training).
    """
    networks = [*_students(comparison, measure), *_teachers(comparison, measure)]
    if not networks:
        return None
    data = []
    for kind, (color, symbol) in _KINDS.items():
        of = [network for network in networks if network.kind == kind]
        if of:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [network.cost for network in of],
                    "y": [100 * network.accuracy.value for network in of],
                    "error_y": error_bars(network.accuracy for network in of),
                    "marker": {"color": color, "symbol": symbol, "size": 12 if kind != "distilled" else 8},
                    "text": [network.label for network in of],
                    "hovertemplate": "%{text}<br>%{x:,.4~s}, accuracy %{y:.2f} %<extra>" + kind + "</extra>",
                }
            )
    positive = [network.cost for network in networks if network.cost > 0]
    wide = bool(positive) and max(positive) > 10 * min(positive)
    layout = {
        "xaxis": {"title": {"text": _TITLES[measure]}, "type": "log" if wide else "linear"}
        | ({} if measure == "seconds" else {"tickformat": "~s"})
        | ({} if wide else {"rangemode": "tozero"}),
        "yaxis": {"title": {"text": "test accuracy, %"}, "automargin": True},
        "height": 340,
    }
    return {"data": data, "layout": layout}


def _students(comparison: Comparison, measure: str) -> Iterator[_Network]:
    for group in comparison.groups:
        known = [cost for run in group.runs if (cost := _cost(run, measure)) is not None]
        accuracy = group.estimate("acc")
        if known and accuracy is not None:
            kind = "control" if group.is_control else "chosen" if group is comparison.winner else "distilled"
            yield _Network(kind, group.label, float(np.mean(known)), accuracy)


def _teachers(comparison: Comparison, measure: str) -> Iterator[_Network]:
    for name, teacher in comparison.teachers.items():
        if measure in teacher.get("model", {}):
            yield _Network("teacher", name, teacher["model"][measure], comparison.teacher_accuracy(teacher))


def _cost(run: Run, measure: str) -> float | None:
    of = run.results.get("cost", {}).get("seconds", {}) if measure == "seconds" else run.results.get("model", {})
    value = of.get("fit" if measure == "seconds" else measure)
    return None if value is None else float(value)
