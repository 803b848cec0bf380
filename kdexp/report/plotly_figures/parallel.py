"""Parallel coordinates: the swept config keys and the metrics of every configuration."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kdexp.report import glossary
from kdexp.report.colors import AXIS_LINE, CIVIDIS, CONTROL
from kdexp.report.comparison import Comparison, plain
from kdexp.report.plotly_figures.drawing import Plot, in_order, shortened, wrapped
from kdexp.report.run_group import RunGroup

_MOST_TICKS = 9


@dataclass(frozen=True)
class _Tick:
    """A height in [0, 1], and what is written there."""

    height: float
    text: str


@dataclass(frozen=True)
class _Axis:
    """One of the upright axes.

    Attributes:
        name: above it.
        heights: of each configuration, in [0, 1]; None where it has no value.
        texts: of each configuration its value.
        ticks: beside the axis.
    """

    name: str
    heights: Sequence[float | None]
    texts: Sequence[str]
    ticks: Sequence[_Tick]


def parallel(comparison: Comparison) -> Plot:
    """Parallel coordinates: a line for each configuration through its values and metrics, colored by that on val.

    Plotly's own parallel coordinates need WebGL, which browsers on a machine without a graphics card give up, and
    their lines cannot be hovered over.
    """
    groups = sorted(comparison.groups, key=lambda group: group.mean(group.measure, "val") or 0)
    axes = list(_axes(comparison, groups))
    return {"data": _lines(comparison, groups, axes), "layout": _layout(axes)}


def _axes(comparison: Comparison, groups: Sequence[RunGroup]) -> Iterator[_Axis]:
    for name in comparison.axes:
        if comparison.varies(name):
            yield _swept(name, [group.axes.get(name) for group in groups])
    metric = glossary.known(comparison.measure)
    measured = metric.column
    for name, values in (
        (f"val {measured}", [group.mean(group.measure, "val") for group in groups]),
        (f"test {measured}", [group.mean(group.measure) for group in groups]),
        ("gain", [group.mean_gain for group in groups]),
    ):
        if any(value is not None for value in values):
            yield _measured(name, [None if value is None else metric.scale * value for value in values])


def _swept(name: str, values: Sequence[object]) -> _Axis:
    """An axis on which the swept values stand at equal distances."""
    steps = in_order(value for value in values if value is not None)
    heights = {step: (i / (len(steps) - 1) if len(steps) > 1 else 0.5) for i, step in enumerate(steps)}
    marked = list(heights.items())[:: max(1, math.ceil(len(steps) / _MOST_TICKS))]
    ticks = [_Tick(height, shortened(step, 12)) for step, height in marked]
    return _Axis(name, [None if v is None else heights[plain(v)] for v in values], list(map(_text, values)), ticks)


def _measured(name: str, values: Sequence[float | None]) -> _Axis:
    """An axis to scale, from the lowest value to the highest."""
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    span = high - low or 1.0
    marks = [low, (low + high) / 2, high] if high > low else [low]
    heights = [None if value is None else (value - low) / span for value in values]
    return _Axis(name, heights, list(map(_text, values)), [_Tick((mark - low) / span, f"{mark:.2f}") for mark in marks])


def _text(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(comparison: Comparison, groups: Sequence[RunGroup], axes: Sequence[_Axis]) -> list[Plot]:
    shades = _shades([group.mean(group.measure, "val") for group in groups])
    lines = []
    for number, group in enumerate(groups):
        color = CONTROL if group.is_control else shades[number]
        width = 3.5 if group is comparison.winner else 1.5
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(range(len(axes))),
                "y": [axis.heights[number] for axis in axes],
                "connectgaps": True,
                "line": {"color": color, "width": width, "dash": "dot" if group.is_control else "solid"},
                "marker": {"size": 5, "color": color},
                "customdata": [axis.texts[number] for axis in axes],
                "text": comparison.marked(group),
                "hovertemplate": "%{text}<br>%{customdata}<extra></extra>",
                "showlegend": False,
            }
        )
    return lines


def _shades(values: Sequence[float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    shades = []
    for value in values:
        place = 0.5 if value is None or high == low else (value - low) / (high - low)
        channels = [round(float(np.interp(place, np.linspace(0, 1, len(CIVIDIS)), channel))) for channel in CIVIDIS.T]
        shades.append(f"rgb({channels[0]},{channels[1]},{channels[2]})")
    return shades


def _layout(axes: Sequence[_Axis]) -> Plot:
    return {
        "xaxis": {
            "tickvals": list(range(len(axes))),
            "ticktext": [wrapped(axis.name, 10) for axis in axes],
            "side": "top",
            "range": [-0.02, len(axes) - 0.98],
            "showgrid": False,
            "showline": False,
            "fixedrange": True,
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "annotations": [_annotation(column, tick) for column, axis in enumerate(axes) for tick in axis.ticks],
        "shapes": [_upright(column) for column in range(len(axes))],
        "margin": {"l": 15 + 7 * max(len(tick.text) for tick in axes[0].ticks), "r": 40},
        "height": 400,
    }


def _upright(column: int) -> Plot:
    line = {"color": AXIS_LINE, "width": 1}
    return {"type": "line", "x0": column, "x1": column, "y0": 0, "y1": 1, "line": line, "layer": "below"}


def _annotation(column: int, tick: _Tick) -> Plot:
    return {
        "x": column,
        "y": tick.height,
        "text": tick.text,
        "showarrow": False,
        "xanchor": "right",
        "xshift": -5,
        "font": {"size": 11},
        "bgcolor": "rgba(255,255,255,0.75)",
    }
