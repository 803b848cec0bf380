"""Confusion matrices on test."""

from collections.abc import Sequence

import numpy as np

from kdexp.report import glossary
from kdexp.report.colors import SEQUENTIAL
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.drawing import WRITTEN_CELLS, Plot, shortened
from kdexp.report.plotly_figures.kept_curves import kept_curves


def confusions(comparison: Comparison, classes: Sequence[str]) -> dict[str, Plot]:
    """Confusion matrices on test of teacher, control and chosen student, summed over seeds."""
    found = {}
    for network in kept_curves(comparison):
        matrices = [curves["confusion"] for curves in network.runs if "confusion" in curves]
        if matrices:
            counted = glossary.known(comparison.measure).counted
            found[network.name] = _confusion(np.sum(matrices, axis=0), classes, counted)
    return found


def _confusion(counts: np.ndarray, classes: Sequence[str], counted: str) -> Plot:
    fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [shortened(name, 12) for name in classes]
    few = len(counts) <= WRITTEN_CELLS
    data = [
        {
            "type": "heatmap",
            "x": names,
            "y": names,
            # By its root: a rare confusion is still seen beside a frequent one.
            "z": np.sqrt(fraction).round(4).tolist(),
            "zmin": 0,
            "zmax": 1,
            "colorscale": SEQUENTIAL,
            "showscale": False,
            "text": [[str(count) if count else "" for count in row] for row in counts.tolist()],
            "texttemplate": "%{text}" if few else "",
            "customdata": np.dstack((counts, (100 * fraction).round(2))).tolist(),
            "hovertemplate": "true %{y}, predicted %{x}<br>%{customdata[0]} "
            + counted
            + ", %{customdata[1]} % of the class"
            "<extra></extra>",
        }
    ]
    axis = {"type": "category", "showgrid": False, "automargin": True, "tickmode": "auto", "nticks": 12 if few else 10}
    layout = {
        "xaxis": axis | {"title": {"text": "predicted"}, "constrain": "domain"},
        "yaxis": axis | {"title": {"text": "true"}, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        "height": 400,
    }
    return {"data": data, "layout": layout}
