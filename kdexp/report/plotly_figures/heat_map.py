"""One number over two swept config keys, as a grid."""

from collections.abc import Callable, Sequence

from kdexp.report import glossary
from kdexp.report.colors import DIVERGING, OUTLINE, SEQUENTIAL
from kdexp.report.comparison import Comparison, plain
from kdexp.report.plotly_figures.drawing import WRITTEN_CELLS, Plot, in_order
from kdexp.report.run_group import RunGroup

Grid = Sequence[Sequence[RunGroup | None]]


def heat_axes(comparison: Comparison) -> tuple[str, str] | None:
    """The two config keys that span the heat map: alpha and temperature where both are swept.

    None when fewer are, and where most cells would be empty: the points of a search are no grid.
    """
    counted = {axis: len({plain(group.axes.get(axis)) for group in comparison.distilled}) for axis in comparison.axes}
    first = {"alpha": 0, "temperature": 1}
    swept = sorted((a for a in counted if counted[a] > 1), key=lambda axis: (first.get(axis, 2), -counted[axis]))
    if len(swept) < 2:
        return None
    x, y = swept[:2]
    filled = {(plain(group.axes.get(x)), plain(group.axes.get(y))) for group in comparison.distilled}
    return (x, y) if 2 * len(filled) >= counted[x] * counted[y] else None


def facets(comparison: Comparison) -> dict[str, list[RunGroup]]:
    """The distilled groups by all that the heat map's axes do not show; the winner's first."""
    axes = heat_axes(comparison) or ()
    found: dict[str, list[RunGroup]] = {}
    first = [comparison.winner] if comparison.winner else []
    for group in [*first, *comparison.distilled]:
        rest = " ".join(f"{a}={plain(v)}" for a, v in group.axes.items() if a not in axes and comparison.varies(a))
        facet = found.setdefault(rest, [])
        if group not in facet:
            facet.append(group)
    return found


def heat_map(
    comparison: Comparison,
    groups: Sequence[RunGroup],
    value: Callable[[RunGroup], float | None],
    *,
    difference: bool,
    limits: tuple[float, float],
) -> Plot:
    """A grid of one number for each configuration.

    Args:
        comparison: where the groups are from; it must have `heat_axes`.
        groups: at most one for each cell.
        value: of the measure; None leaves the cell empty.
        difference: whether it is a gain (two hues about zero), or a value.
        limits: of the colors, as they are, so that several maps can be compared.
    """
    axes = heat_axes(comparison)
    assert axes
    x, y = axes[1], axes[0]
    columns, rows = [in_order(group.axes.get(axis) for group in groups) for axis in (x, y)]
    cells = {(plain(group.axes.get(y)), plain(group.axes.get(x))): group for group in groups}
    grid = [[cells.get((row, column)) for column in columns] for row in rows]
    metric = glossary.known(comparison.measure)
    form = f"{'+' if difference else ''}.{metric.decimals}f"
    low, high = (metric.scale * limit for limit in limits)
    values = [[None if cell is None else value(cell) for cell in row] for row in grid]
    trace = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": [[None if v is None else metric.scale * v for v in row] for row in values],
        "zmin": low,
        "zmax": high if high > low else low + 1,
        "colorscale": DIVERGING if difference else SEQUENTIAL,
        "showscale": False,
        "texttemplate": f"%{{z:{form}}}" if len(columns) <= WRITTEN_CELLS else "",
        "xgap": 2,
        "ygap": 2,
        "customdata": [
            [[len(cell.runs), "chosen" if cell is comparison.winner else ""] if cell else [0, ""] for cell in row]
            for row in grid
        ],
        "hovertemplate": f"{y} %{{y}}, {x} %{{x}}<br>%{{z:{form}}} (n=%{{customdata[0]}}) %{{customdata[1]}}"
        "<extra></extra>",
    }
    layout = {
        "xaxis": {"type": "category", "title": {"text": x}, "showgrid": False},
        "yaxis": {"type": "category", "title": {"text": y}, "showgrid": False, "automargin": True},
        "shapes": _outline(grid, comparison.winner),
        "height": min(130 + 46 * len(rows), 640),
    }
    return {"data": [trace], "layout": layout}


def _outline(grid: Grid, winner: RunGroup | None) -> list[Plot]:
    """A frame around the chosen cell, where it is in the grid."""
    return [
        {
            "type": "rect",
            "x0": i - 0.5,
            "x1": i + 0.5,
            "y0": j - 0.5,
            "y1": j + 0.5,
            "line": {"color": OUTLINE, "width": 2},
        }
        for j, row in enumerate(grid)
        for i, cell in enumerate(row)
        if cell is winner
    ]
