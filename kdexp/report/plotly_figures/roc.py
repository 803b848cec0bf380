"""ROC curves on test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdexp.report.colors import AXIS_LINE, CLASSES
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.drawing import Plot, shortened
from kdexp.report.plotly_figures.kept_curves import kept_curves
from kdexp.results import Record


@dataclass(frozen=True)
class _Roc:
    """One curve, the mean over seeds."""

    fpr: Sequence[float]
    tpr: Sequence[float]
    auc: float


def roc(comparison: Comparison) -> Plot | None:
    """Macro ROC curves on test of teacher, control and chosen student, means over seeds."""
    return _figure(
        [
            _trace(network.name, mean, {"color": network.color, "width": 2.2})
            for network in kept_curves(comparison)
            if (mean := _mean(network.runs, "macro"))
        ]
    )


def roc_of_classes(comparison: Comparison, classes: Sequence[str]) -> Plot | None:
    """The chosen student's ROC curve on test for each class against the rest, means over seeds."""
    students = [network.runs for network in kept_curves(comparison) if not network.is_teacher]
    if not students:
        return None
    runs = students[-1]
    numbers = [number for number in runs[0].get("roc", ()) if number != "macro"]
    width = 1.4 if len(numbers) <= len(CLASSES) else 1
    return _figure(
        [
            _trace(shortened(classes[int(number)], 18), mean, {"color": CLASSES[place % len(CLASSES)], "width": width})
            for place, number in enumerate(numbers)
            if (mean := _mean(runs, number))
        ]
    )


def _mean(runs: Sequence[Record], name: str) -> _Roc | None:
    having = [curves for curves in runs if name in curves.get("roc", {})]
    if not having:
        return None
    tpr = np.mean([curves["roc"][name] for curves in having], axis=0)
    auc = float(np.mean([curves["auc"][name] for curves in having]))
    return _Roc(having[0]["fpr"], [round(float(value), 4) for value in tpr], auc)


def _trace(name: str, curve: _Roc, line: Plot) -> Plot:
    name = f"{name}  {curve.auc:.4f}"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": curve.fpr,
        "y": curve.tpr,
        "line": line,
        "hovertemplate": "%{x:.3f}, %{y:.3f}<extra>" + name + "</extra>",
    }


def _figure(traces: Sequence[Plot]) -> Plot | None:
    if not traces:
        return None
    chance = {"color": AXIS_LINE, "width": 1, "dash": "dot"}
    layout = {
        "xaxis": {"title": {"text": "false positive rate"}, "range": [-0.02, 1.02]},
        "yaxis": {"title": {"text": "true positive rate"}, "range": [-0.02, 1.02]},
        "shapes": [{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": chance}],
        "legend": {
            "title": {"text": "area under the curve"},
            "orientation": "v",
            "x": 0.99,
            "y": 0.02,
            "xanchor": "right",
            "yanchor": "bottom",
            "bgcolor": "rgba(255,255,255,0.85)",
            "font": {"size": 11 if len(traces) <= len(CLASSES) else 9},
        },
        "height": 430,
    }
    return {"data": traces, "layout": layout}
