"""The confusion matrix of one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdexp.report.png_figures.drawing import NAMED_CLASSES, new_figure, save, shortened

if TYPE_CHECKING:
    from kdexp.metrics.roc_and_confusion import RocAndConfusion  # not at run time: pictures of results need no torch

_SQRT = PowerNorm(0.5, vmin=0, vmax=1)  # a rare confusion is still seen beside a frequent one
_WRITTEN_CLASSES = 20  # more rows than these get no names and no counts


def confusion(curves: "RocAndConfusion", classes: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix, each row as fractions of its true class; multilabel data have none, and get no file.

    Up to twenty classes have their names and counts written; above, only the picture and a few class numbers are.

    Args:
        curves: see `kdexp.metrics.roc_and_confusion.RocAndConfusion`.
        classes: names of the classes, by number.
        path: the PNG file.
    """
    if curves.confusion is None:
        return
    counts = np.array(curves.confusion)
    fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(4.2, 0.55 * len(counts)), 8.0)
    names = [shortened(name) for name in classes] if len(counts) <= _WRITTEN_CLASSES else []
    slanted = any(len(name) > 3 for name in names)
    width = side + 1.4
    # In inches: the labels and the color bar take as much room around few classes as around many.
    inches = {"left": 0.65 / width, "right": 1 - 0.25 / width, "bottom": 0.55 / side, "top": 1 - 0.35 / side}
    figure = new_figure(width, side, **({} if slanted else inches))
    axes = figure.add_subplot()
    image = axes.imshow(fraction, cmap="Blues", norm=_SQRT, interpolation="nearest")
    figure.colorbar(
        image, ax=axes, shrink=0.8, label="fraction of the true class", format=PercentFormatter(1, decimals=0)
    )
    axes.set(xlabel="predicted", ylabel="true", title=f"{np.trace(counts)} of {counts.sum()} correct")
    if names:
        ticks = range(len(counts))
        axes.set_xticks(ticks, names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(ticks, names)
        _write_counts(axes, counts, fraction)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, path)


def _write_counts(axes: Axes, counts: np.ndarray, fraction: np.ndarray) -> None:
    size = 10 if len(counts) <= NAMED_CLASSES else 7
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if _SQRT(fraction[row, column]) > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=size)
