"""What several figures share: Plotly's traces and layouts as plain dicts, and short texts."""

from collections.abc import Iterable, Sequence
from typing import Any

from kdexp.report.colors import ERROR_BAR
from kdexp.report.comparison import plain
from kdexp.report.condition_curves import CONDITIONS, IN_RATIOS
from kdexp.report.glossary import SHARE, Metric
from kdexp.report.statistics import Estimate, Point

Plot = dict[str, Any]
"""A figure's data and layout, one trace, or a part of them: what Plotly's schema says."""

WRITTEN_CELLS = 12
"""Grids of up to so many columns have their numbers written into them."""


def layout_over(axis: str, title: str) -> Plot:
    """The layout of a line plot over a condition of the training data, or another axis.

    Args:
        axis: one of `CONDITIONS`, or the words to stand below the axis.
        title: what stands beside the other axis.
    """
    words = CONDITIONS.get(axis, axis)
    return {
        "xaxis": {"title": {"text": words}, "type": "log" if axis in IN_RATIOS else "linear"},
        "yaxis": {"title": {"text": title}, "automargin": True},
        "height": 400,
    }


def line_trace(name: str, color: str, points: Sequence[Point], dash: str = "solid", metric: Metric = SHARE) -> Plot:
    """A line through values of a metric, with their intervals."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": wrapped(name, 34),
        "x": [point.x for point in points],
        "y": [round(metric.scale * point.estimate.value, 4) for point in points],
        "error_y": error_bars([point.estimate for point in points], metric) | {"color": color},
        "line": {"color": color, "width": 2, "dash": dash},
        "hovertemplate": "%{x}: %{y:.2f}<extra>" + wrapped(name, 60) + "</extra>",
    }


def error_bars(estimates: Iterable[Estimate], metric: Metric = SHARE) -> Plot:
    """The intervals of values of a metric."""
    known = list(estimates)
    return {
        "type": "data",
        "symmetric": False,
        "array": [metric.scale * (interval[1] - value) if interval else None for value, interval in known],
        "arrayminus": [metric.scale * (value - interval[0]) if interval else None for value, interval in known],
        "thickness": 1.4,
        "width": 4,
        "color": ERROR_BAR,
    }


def in_order(values: Iterable[object]) -> list[str]:
    """Each value once, as it is written: numbers in their order, then words in theirs."""
    found = {plain(value): value for value in values}
    numbers = {text: value for text, value in found.items() if isinstance(value, int | float)}
    return sorted(numbers, key=lambda text: numbers[text]) + sorted(found.keys() - numbers.keys())


def faded(color: str, opacity: float) -> str:
    """A color (``#rrggbb``) with an opacity in [0, 1]."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def shortened(text: str, most: int) -> str:
    """The text in at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def wrapped(text: str, most: int = 22) -> str:
    """The text with line breaks between words, in lines of about so many characters."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= most:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(shortened(line, 2 * most) for line in lines)
