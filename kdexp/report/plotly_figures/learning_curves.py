"""Loss, and what the runs are compared by, over the epochs."""

import math
from collections.abc import Sequence

import numpy as np

from kdexp.report import glossary
from kdexp.report.colors import CONTROL, OTHER, WINNER
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.drawing import Plot, faded, wrapped
from kdexp.report.run_group import RunGroup

_MOST_LINES = 8


def learning_curves(comparison: Comparison, name: str) -> Plot | None:
    """A column of metrics.csv over the epochs: means over seeds, and the range of the seeds of control and winner.

    Args:
        comparison: what is compared; the chosen configuration, its control and the next best on val are drawn.
        name: of the column: ``val/MEASURE``, ``val/loss``, ``train/loss``.
    """
    split, _, metric = name.partition("/")
    known = glossary.known(metric)
    title = f"loss on {split}" if metric == "loss" else known.axis(f"{known.name} on {split}")
    first = [group for group in (comparison.winner, comparison.control) if group]
    shown = [*first, *(group for group in comparison.ranked if group not in first)][:_MOST_LINES]
    data: list[Plot] = []
    longest = 1
    for group in reversed(shown):
        values = _by_seed(group, name)
        if values is None:
            continue
        longest = max(longest, values.shape[1])
        color = {id(comparison.winner): WINNER, id(comparison.control): CONTROL}.get(id(group), OTHER)
        if color != OTHER and len(values) > 1:
            data.append(_band(values, color))
        is_first_other = all(trace.get("legendgroup") != "others" for trace in data)
        data.append(_mean(group, values, color) | {"showlegend": color != OTHER or is_first_other})
    if not data:
        return None
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": max(1, math.ceil(longest / 10))},
        "yaxis": {"title": {"text": title}, "automargin": True},
        "legend": {"traceorder": "reversed"},
        "height": 400,
    }
    return {"data": data, "layout": layout}


def _by_seed(group: RunGroup, name: str) -> np.ndarray | None:
    """(seeds, epochs): a metric as it is shown, as far as all seeds have it; None when no seed has it."""
    metric = name.rpartition("/")[2]
    scale = 1 if metric == "loss" else glossary.known(metric).scale
    curves = [[row[name] * scale for row in run.epochs if name in row] for run in group.runs]
    lengths = {len(curve) for curve in curves if curve}
    return np.array([curve[: min(lengths)] for curve in curves if curve]) if lengths else None


def _mean(group: RunGroup, values: np.ndarray, color: str) -> Plot:
    is_named = color != OTHER
    return {
        "type": "scatter",
        "mode": "lines" if values.shape[1] > 1 else "markers",
        "name": wrapped(group.label, 34) if is_named else "next best on val",
        "legendgroup": group.label if is_named else "others",
        "x": _epochs(values),
        "y": [round(float(value), 4) for value in values.mean(0)],
        "line": {"color": color, "width": 2.5 if is_named else 1.2},
        "hovertemplate": "epoch %{x}: %{y:.4~g}<extra>" + wrapped(group.label, 60) + "</extra>",
    }


def _band(values: np.ndarray, color: str) -> Plot:
    """The range of the seeds."""
    epochs, low, high = _epochs(values), values.min(0).tolist(), values.max(0).tolist()
    return {
        "type": "scatter",
        "x": [*epochs, *reversed(epochs)],
        "y": [round(value, 4) for value in (*high, *reversed(low))],
        "fill": "toself",
        "fillcolor": faded(color, 0.12),
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _epochs(values: np.ndarray) -> Sequence[int]:
    return list(range(values.shape[1]))
