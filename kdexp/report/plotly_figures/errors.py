"""Test error of teacher, control and chosen student, as bars."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdexp.report.colors import CONTROL, TEACHER, WINNER
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.drawing import Plot, error_bars, faded, wrapped
from kdexp.report.statistics import Estimate
from kdexp.report.summary_text import spread


@dataclass(frozen=True)
class _Network:
    """One network's bars.

    Attributes:
        label: below them.
        color: theirs.
        accuracy: on test, by epoch: ``best``, ``last``.
    """

    label: str
    color: str
    accuracy: dict[str, Estimate]


def errors(comparison: Comparison) -> Plot:
    """Bars of the test error of teacher, control and chosen student, with intervals, at the best and the last epoch."""
    networks = [*_networks(comparison)][::-1]  # Plotly begins at the bottom
    data: list[Plot] = []
    for epoch, name in (("last", "last epoch"), ("best", "best epoch by validation")):
        filled = epoch == "best"
        data.append(_bars([network for network in networks if epoch in network.accuracy], epoch, name, filled))
        # The legend tells the kinds of bars apart, not whose they are.
        swatch = {"color": faded(CONTROL, 0.6) if filled else "#fff", "line": {"color": CONTROL, "width": 1.5}}
        data.append({"type": "bar", "orientation": "h", "name": name, "x": [None], "y": [None], "marker": swatch})
    axes = {
        "xaxis": {"title": {"text": "test error, %"}, "rangemode": "tozero"},
        "yaxis": {"showgrid": False, "automargin": True},
        "legend": {"traceorder": "reversed"},
    }
    layout = {**axes, "barmode": "group", "bargap": 0.3, "height": 120 + 75 * len(networks)}
    return {"data": data, "layout": layout}


def _networks(comparison: Comparison) -> Iterator[_Network]:
    for name, teacher in itertools.islice(comparison.teachers.items(), 1):
        accuracy = comparison.teacher_accuracy(teacher)
        label = f"{wrapped(f'teacher {name}')}<br>{100 * accuracy.value:.2f} % accuracy"
        yield _Network(label, TEACHER, {"best": accuracy})
    for group, color in ((comparison.control, CONTROL), (comparison.winner, WINNER)):
        if group:
            found = {epoch: group.estimate("acc", "test", epoch) for epoch in ("best", "last")}
            shown = {epoch: estimate for epoch, estimate in found.items() if estimate is not None}
            yield _Network(f"{wrapped(group.label)}<br>{spread(group)} accuracy", color, shown)


def _bars(networks: Sequence[_Network], epoch: str, name: str, filled: bool) -> Plot:
    accuracies = [network.accuracy[epoch] for network in networks]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [network.label for network in networks],
        "x": [100 * (1 - accuracy.value) for accuracy in accuracies],
        "error_x": error_bars(map(_as_error, accuracies)),
        "marker": {
            "color": [faded(network.color, 0.6) if filled else "#fff" for network in networks],
            "line": {"color": [network.color for network in networks], "width": 1.5},
        },
        "customdata": [100 * accuracy.value for accuracy in accuracies],
        "hovertemplate": "%{y}<br>error %{x:.2f} %, accuracy %{customdata:.2f} %<extra>" + name + "</extra>",
        "showlegend": False,
    }


def _as_error(accuracy: Estimate) -> Estimate:
    ends = accuracy.interval
    return Estimate(1 - accuracy.value, ends and (1 - ends[1], 1 - ends[0]))
