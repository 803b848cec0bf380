"""Teacher, control and chosen student on test, as bars."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdexp.report import glossary
from kdexp.report.colors import CONTROL, TEACHER, WINNER
from kdexp.report.comparison import Comparison
from kdexp.report.glossary import Metric
from kdexp.report.plotly_figures.drawing import Plot, error_bars, faded, wrapped
from kdexp.report.statistics import Estimate
from kdexp.report.summary_text import spread


@dataclass(frozen=True, eq=False)
class _Network:
    """One network's bars.

    Attributes:
        label: below them.
        color: theirs.
        estimates: of the measure on test, by epoch: ``best``, ``last``.
    """

    label: str
    color: str
    estimates: dict[str, Estimate]


def errors(comparison: Comparison) -> Plot:
    """Bars of teacher, control and chosen student on test, with intervals, at the best and the last epoch.

    They show the error where the runs are compared by accuracy, else what they are compared by.
    """
    metric, is_error = glossary.known(comparison.measure), comparison.measure == "acc"
    networks = [*_networks(comparison)][::-1]  # Plotly begins at the bottom
    data: list[Plot] = []
    for epoch, name in (("last", "last epoch"), ("best", "best epoch by validation")):
        filled = epoch == "best"
        estimates = [network.estimates.get(epoch) for network in networks]
        shown = {network: found for network, found in zip(networks, estimates, strict=True) if found is not None}
        data.append(_bars(shown, name, filled=filled, metric=metric, is_error=is_error))
        # The legend tells the kinds of bars apart, not whose they are.
        swatch = {"color": faded(CONTROL, 0.6) if filled else "#fff", "line": {"color": CONTROL, "width": 1.5}}
        data.append({"type": "bar", "orientation": "h", "name": name, "x": [None], "y": [None], "marker": swatch})
    shown_as = "error" if is_error else metric.name
    axes = {
        "xaxis": {"title": {"text": metric.axis(f"test {shown_as}")}, "rangemode": "tozero"},
        "yaxis": {"showgrid": False, "automargin": True},
        "legend": {"traceorder": "reversed"},
    }
    layout = {**axes, "barmode": "group", "bargap": 0.3, "height": 120 + 75 * len(networks)}
    return {"data": data, "layout": layout}


def _networks(comparison: Comparison) -> Iterator[_Network]:
    metric = glossary.known(comparison.measure)
    for name, teacher in itertools.islice(comparison.teachers.items(), 1):
        estimate = comparison.of_teacher(teacher)
        label = f"{wrapped(f'teacher {name}')}<br>{metric.in_unit(metric.number(estimate.value))} {metric.name}"
        yield _Network(label, TEACHER, {"best": estimate})
    for group, color in ((comparison.control, CONTROL), (comparison.winner, WINNER)):
        if group:
            found = {epoch: group.estimate(group.measure, "test", epoch) for epoch in ("best", "last")}
            shown = {epoch: estimate for epoch, estimate in found.items() if estimate is not None}
            yield _Network(f"{wrapped(group.label)}<br>{spread(group)} {metric.name}", color, shown)


def _bars(shown: Mapping[_Network, Estimate], name: str, *, filled: bool, metric: Metric, is_error: bool) -> Plot:
    estimates = [_as_error(estimate) if is_error else estimate for estimate in shown.values()]
    text = f"%{{y}}<br>{'error %{x:.2f} %, ' if is_error else ''}{metric.name} %{{customdata:.2f}} {metric.shown_in}"
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [network.label for network in shown],
        "x": [metric.scale * estimate.value for estimate in estimates],
        "error_x": error_bars(estimates, metric),
        "marker": {
            "color": [faded(network.color, 0.6) if filled else "#fff" for network in shown],
            "line": {"color": [network.color for network in shown], "width": 1.5},
        },
        "customdata": [metric.scale * estimate.value for estimate in shown.values()],
        "hovertemplate": f"{text}<extra>{name}</extra>",
        "showlegend": False,
    }


def _as_error(estimate: Estimate) -> Estimate:
    ends = estimate.interval
    return Estimate(1 - estimate.value, ends and (1 - ends[1], 1 - ends[0]))
