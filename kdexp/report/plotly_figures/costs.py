"""What the runs are compared by, over what a network costs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kdexp.report import glossary
from kdexp.report.colors import CONTROL, GREEN, OTHER, TEACHER, WINNER
from kdexp.report.comparison import Comparison
from kdexp.report.glossary import Metric
from kdexp.report.plotly_figures.drawing import Plot, error_bars
from kdexp.report.runs import Run
from kdexp.report.statistics import Estimate

# Kind of a network -> its color and Plotly's symbol; drawn in this order, the last on top.
_KINDS = {
    "distilled": (OTHER, "circle"),
    "control": (CONTROL, "square"),
    "half of the budget": (GREEN, "star"),
    "chosen": (WINNER, "star"),
    "teacher": (TEACHER, "diamond"),
}
_TITLES = {"parameters": "parameters", "macs": "multiply-accumulates a sample", "seconds": "seconds of training"}


@dataclass(frozen=True)
class Network:
    """One point: a teacher, or a student over its seeds."""

    kind: str
    label: str
    cost: float
    estimate: Estimate


def costs(comparison: Comparison, unit: str) -> Plot | None:
    """The measure on test against a cost.

    Args:
        comparison: what is compared.
        unit: of the cost: ``parameters``, ``macs`` or ``seconds`` (of training).
    """
    networks = [*_students(comparison, unit), *_teachers(comparison, unit)]
    if not networks:
        return None
    metric = glossary.known(comparison.measure)
    plot = over_cost(networks, _TITLES[unit], metric, f"test {metric.name}")
    if unit != "seconds":
        plot["layout"]["xaxis"]["tickformat"] = "~s"
    return plot


def over_cost(networks: Sequence[Network], cost: str, metric: Metric, shown: str) -> Plot:
    """Values of a metric over what the networks cost.

    Args:
        networks: one or more.
        cost: what stands below the axis.
        metric: which one.
        shown: what stands beside the other axis.
    """
    value = f"{metric.name} %{{y:.2f}} {metric.shown_in}"
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
                    "y": [metric.scale * network.estimate.value for network in of],
                    "error_y": error_bars((network.estimate for network in of), metric),
                    "marker": {"color": color, "symbol": symbol, "size": 12 if kind != "distilled" else 8},
                    "text": [network.label for network in of],
                    "hovertemplate": f"%{{text}}<br>%{{x:,.4~s}}, {value}<extra>{kind}</extra>",
                }
            )
    positive = [network.cost for network in networks if network.cost > 0]
    wide = bool(positive) and max(positive) > 10 * min(positive)
    layout = {
        "xaxis": {"title": {"text": cost}, "type": "log" if wide else "linear"}
        | ({} if wide else {"rangemode": "tozero"}),
        "yaxis": {"title": {"text": metric.axis(shown)}, "automargin": True},
        "height": 340,
    }
    return {"data": data, "layout": layout}


def _students(comparison: Comparison, unit: str) -> Iterator[Network]:
    for group in comparison.groups:
        known = [cost for run in group.runs if (cost := _cost(run, unit)) is not None]
        estimate = group.estimate(comparison.measure)
        if known and estimate is not None:
            kind = "control" if group.is_control else "chosen" if group is comparison.winner else "distilled"
            yield Network(kind, group.label, float(np.mean(known)), estimate)


def _teachers(comparison: Comparison, unit: str) -> Iterator[Network]:
    for name, teacher in comparison.teachers.items():
        if unit in teacher.get("model", {}):
            yield Network("teacher", name, teacher["model"][unit], comparison.of_teacher(teacher))


def _cost(run: Run, unit: str) -> float | None:
    of = run.results.get("cost", {}).get("seconds", {}) if unit == "seconds" else run.results.get("model", {})
    value = of.get("fit" if unit == "seconds" else unit)
    return None if value is None else float(value)
