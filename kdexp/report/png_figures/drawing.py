"""What several PNG files share: a figure, its lines, and how it is saved."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdexp.atomic import atomic_path
from kdexp.report.glossary import Metric
from kdexp.report.statistics import Point

NAMED_CLASSES = 10
"""More ROC curves than these get no names."""

_MARKED_POINTS = 20  # a longer line needs no markers


def new_figure(width: float, height: float, **margins: float) -> Figure:
    """An empty figure.

    Args:
        width: in inches, of 150 pixels; likewise height.
        height: see width.
        margins: of matplotlib's ``subplots_adjust``; without them they are measured, which takes as long as to draw.
    """
    figure = Figure(figsize=(width, height), dpi=150, layout=None if margins else "constrained")
    if margins:
        figure.subplots_adjust(**margins)
    return figure


def draw_line(axes: Axes, points: Sequence[tuple[float, float]], color: str, marker: str, label: str) -> None:
    """Draw a line over epochs or levels; a point that stands alone makes none, so that short lines have markers."""
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=color,
        marker=marker if len(points) <= _MARKED_POINTS else None,
        markersize=3.5,
        label=label,
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)


def draw_estimates(axes: Axes, points: Iterable[Point], color: str, marker: str, label: str) -> None:
    """Draw a line through estimates, with their intervals where they have any."""
    known = [(x, value, interval or (math.nan, math.nan)) for x, (value, interval) in points]
    below, above = [y - low for _, y, (low, _) in known], [high - y for _, y, (_, high) in known]
    axes.errorbar(
        [x for x, *_ in known],
        [y for _, y, _ in known],
        (below, above),
        color=color,
        marker=marker,
        markersize=3.5,
        capsize=2,
        label=label,
    )


def in_unit(axes: Axes, metric: Metric, decimals: int | None = None, *, differences: bool = False) -> None:
    """Write the ticks of the upright axis as the metric is shown: shares in %; others as they are, their unit above.

    Args:
        axes: to write at.
        metric: what is drawn.
        decimals: of shares; None: as many as the ticks need.
        differences: whether they are differences.
    """
    if not metric.unit:
        symbol = " points" if differences else "%"
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=symbol))
    elif metric.shown_in:
        axes.set_ylabel(metric.shown_in)


def shortened(name: str) -> str:
    """A class's name in at most 14 characters, none of which Matplotlib reads as a formula."""
    return (name if len(name) <= 14 else f"{name[:13]}…").replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write the PNG file, whole or not at all."""
    with atomic_path(path) as temporary:
        write_png(figure, temporary)


def write_png(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a figure as a PNG."""
    # Not pyplot: no window system, and no state that outlives the figure. Nor savefig, which draws twice for a layout.
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
