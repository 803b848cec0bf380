"""The report page's figures, as what Plotly draws: plain dicts of data and layout."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from kdexp.report.comparison import Comparison, Setting, plain
from kdexp.report.curves import CONDITIONS, IN_RATIOS, Curve, Line
from kdexp.report.runs import Run
from kdexp.report.statistics import t_interval, wilson, with_p
from kdexp.report.summary import spread

Plot = dict[str, Any]

# Colours that people with any kind of colour vision can tell apart (Okabe and Ito 2008), darkened to be read on white.
WINNER, TEACHER, CONTROL, OTHER = "#0072b2", "#b85000", "#4d4d4d", "#9aa5b1"
SEED = "#55606b"
_CLASSES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7a5195",
    "#6b7a00",
    "#8c564b",
    "#4d4d4d",
)
# Light means low, in one hue, so that the cells' numbers stay readable; for differences two hues about white.
_SCALE = [[0, "#f4f8fb"], [0.5, "#9ec5dd"], [1, "#0b5c8f"]]
_DIVERGING = [[0, "#b35806"], [0.25, "#f1b873"], [0.5, "#f7f7f7"], [0.75, "#8fb8d8"], [1, "#1f5f99"]]
# Cividis (Nunez, Anderton and Renslow 2018), for lines: dark is low, yellow is high.
_CIVIDIS = np.array([[0, 34, 78], [65, 77, 107], [124, 123, 120], [188, 175, 111], [230, 205, 60]])

_LINES = 8  # learning curves in one plot
_ROWS = 40  # settings in one plot of differences
_COUNTED = 12  # confusion matrices up to this many classes have their counts written


def errors(comparison: Comparison) -> Plot:
    """Bars of the test error of teacher, control and chosen student, with intervals, at the best and the last epoch."""
    rows: list[tuple[str, str, dict[str, tuple[float, tuple[float, float] | None]]]] = []
    for name, teacher in itertools.islice(comparison.teachers.items(), 1):
        share, samples = teacher["test"]["acc"], _samples(comparison)
        label = f"{_wrapped(f'teacher {name}')}<br>{100 * share:.2f} % right"
        rows.append((label, TEACHER, {"best": (share, wilson(share, samples) if samples else None)}))
    for setting, colour in ((comparison.control, CONTROL), (comparison.winner, WINNER)):
        if setting:
            shown = {
                epoch: (mean, setting.interval("acc", "test", epoch))
                for epoch in ("best", "last")
                if (mean := setting.mean("acc", "test", epoch)) is not None
            }
            rows.append((f"{_wrapped(setting.label)}<br>{spread(setting)} right", colour, shown))
    rows.reverse()  # Plotly begins at the bottom
    data: list[Plot] = []
    for epoch, name in (("last", "last epoch"), ("best", "best epoch by validation")):
        of = [(label, colour, *shown[epoch]) for label, colour, shown in rows if epoch in shown]
        filled = epoch == "best"
        style = {"color": [_faded(colour, 0.6) if filled else "#fff" for _, colour, *_ in of]}
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [label for label, *_ in of],
                "x": [100 * (1 - share) for *_, share, _ in of],
                "error_x": _error_bars([(1 - share, interval and _mirrored(interval)) for *_, share, interval in of]),
                "marker": {**style, "line": {"color": [colour for _, colour, *_ in of], "width": 1.5}},
                "customdata": [100 * share for *_, share, _ in of],
                "hovertemplate": "%{y}<br>error %{x:.2f} %, accuracy %{customdata:.2f} %<extra>" + name + "</extra>",
                "showlegend": False,
            }
        )
        # The legend tells the kinds of bars apart, not whose they are.
        swatch = {"color": _faded(CONTROL, 0.6) if filled else "#fff", "line": {"color": CONTROL, "width": 1.5}}
        data.append({"type": "bar", "orientation": "h", "name": name, "x": [None], "y": [None], "marker": swatch})
    axes = {
        "xaxis": {"title": {"text": "test error, %"}, "rangemode": "tozero"},
        "yaxis": {"showgrid": False, "automargin": True},
        "legend": {"traceorder": "reversed"},
    }
    layout = {**axes, "barmode": "group", "bargap": 0.3, "height": 120 + 75 * len(rows)}
    return {"data": data, "layout": layout}


def heat_axes(comparison: Comparison) -> tuple[str, str] | None:
    """The two settings that span the heat map: alpha and temperature where both are swept.

    None when fewer are, and where most cells would be empty: the points of a search are no grid.
    """
    counted = {
        axis: len({plain(setting.axes.get(axis)) for setting in comparison.distilled}) for axis in comparison.axes
    }
    first = {"alpha": 0, "temperature": 1}
    swept = sorted((a for a in counted if counted[a] > 1), key=lambda axis: (first.get(axis, 2), -counted[axis]))
    if len(swept) < 2:
        return None
    x, y = swept[:2]
    filled = {(plain(setting.axes.get(x)), plain(setting.axes.get(y))) for setting in comparison.distilled}
    return (x, y) if 2 * len(filled) >= counted[x] * counted[y] else None


def facets(comparison: Comparison) -> dict[str, list[Setting]]:
    """The distilled settings by all that the heat map's axes do not show; the winner's first."""
    axes = heat_axes(comparison) or ()
    found: dict[str, list[Setting]] = {}
    first = [comparison.winner] if comparison.winner else []
    for setting in [*first, *comparison.distilled]:
        rest = " ".join(f"{a}={plain(v)}" for a, v in setting.axes.items() if a not in axes and varies(a, comparison))
        group = found.setdefault(rest, [])
        if setting not in group:
            group.append(setting)
    return found


def heat_map(
    comparison: Comparison,
    settings: Sequence[Setting],
    value: Callable[[Setting], float | None],
    *,
    difference: bool,
    limits: tuple[float, float],
) -> Plot:
    """A grid of one number for each setting.

    Args:
        comparison: where the settings are from.
        settings: at most one for each cell.
        value: a share; None leaves the cell empty.
        difference: whether it is a gain (two hues about zero), or an accuracy.
        limits: of the colours, as shares, so that several maps can be compared.
    """
    axes = heat_axes(comparison)
    assert axes
    x, y = axes[1], axes[0]
    columns, rows = [_steps(setting.axes.get(axis) for setting in settings) for axis in (x, y)]
    cells = {(plain(setting.axes.get(y)), plain(setting.axes.get(x))): setting for setting in settings}
    grid = [[cells.get((row, column)) for column in columns] for row in rows]
    z = [[None if cell is None or (v := value(cell)) is None else 100 * v for cell in row] for row in grid]
    form = "+.2f" if difference else ".2f"
    low, high = (100 * limit for limit in limits)
    data = [
        {
            "type": "heatmap",
            "x": columns,
            "y": rows,
            "z": z,
            "zmin": low,
            "zmax": high if high > low else low + 1,
            "colorscale": _DIVERGING if difference else _SCALE,
            "showscale": False,
            "texttemplate": f"%{{z:{form}}}" if len(columns) <= _COUNTED else "",
            "xgap": 2,
            "ygap": 2,
            "customdata": [
                [[len(cell.runs), "chosen" if cell is comparison.winner else ""] if cell else [0, ""] for cell in row]
                for row in grid
            ],
            "hovertemplate": f"{y} %{{y}}, {x} %{{x}}<br>%{{z:{form}}} (n=%{{customdata[0]}}) %{{customdata[1]}}"
            "<extra></extra>",
        }
    ]
    outlined = [
        {
            "type": "rect",
            "x0": i - 0.5,
            "x1": i + 0.5,
            "y0": j - 0.5,
            "y1": j + 0.5,
            "line": {"color": "#111", "width": 2},
        }
        for j, row in enumerate(grid)
        for i, cell in enumerate(row)
        if cell is comparison.winner
    ]
    layout = {
        "xaxis": {"type": "category", "title": {"text": x}, "showgrid": False},
        "yaxis": {"type": "category", "title": {"text": y}, "showgrid": False, "automargin": True},
        "shapes": outlined,
        "height": min(130 + 46 * len(rows), 640),
    }
    return {"data": data, "layout": layout}


def gains(comparison: Comparison) -> Plot | None:
    """Each setting's gain over its control: mean and interval, and a dot a seed; the best on val on top."""
    shown = [setting for setting in comparison.ranked if setting.gain][:_ROWS]
    if not shown:
        return None
    shown.reverse()
    names = [_wrapped(comparison.marked(setting)) for setting in shown]
    lines = max(name.count("<br>") for name in names) + 1
    colours = [WINNER if setting is comparison.winner else OTHER for setting in shown]
    found = [setting.gain for setting in shown if setting.gain]
    dots = [(name, 100 * value) for name, gain in zip(names, found, strict=True) for value in gain.differences]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "one seed",
            "x": [value for _, value in dots],
            "y": [name for name, _ in dots],
            "marker": {"size": 16, "color": SEED, "symbol": "line-ns-open", "line": {"width": 2}},
            "hovertemplate": "%{y}<br>%{x:+.2f} points<extra>one seed</extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean, 95 % t interval",
            "x": [100 * gain.mean for gain in found],
            "y": names,
            "error_x": _error_bars([(gain.mean, gain.interval) for gain in found]),
            "marker": {"size": 9, "color": colours},
            "customdata": [[gain.n, with_p(gain.verdict, gain.p)] for gain in found],
            "hovertemplate": "%{y}<br>%{x:+.2f} points, n=%{customdata[0]}: %{customdata[1]}<extra></extra>",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "gain on test, points"}, "zeroline": True},
        "yaxis": {"type": "category", "automargin": True, "showgrid": False, "range": [-0.7, len(names) - 0.3]},
        "height": 130 + (12 + 14 * lines) * len(names),
    }
    return {"data": data, "layout": layout}


def parallel(comparison: Comparison) -> Plot:
    """Parallel coordinates: a line for each setting through its values and what came out, coloured by val accuracy.

    Plotly's own parallel coordinates need WebGL, which browsers on a machine without a graphics card give up, and
    their lines cannot be hovered over.
    """
    settings = sorted(comparison.settings, key=lambda setting: setting.mean("acc", "val") or 0)
    columns: dict[str, list[Any]] = {
        axis: [setting.axes.get(axis) for setting in settings] for axis in comparison.axes if varies(axis, comparison)
    }
    measures = {
        "val acc": [_in_percent(setting.mean("acc", "val")) for setting in settings],
        "test acc": [_in_percent(setting.mean("acc")) for setting in settings],
        "gain": [_in_percent(setting.mean_gain) for setting in settings],
    }
    columns |= {name: values for name, values in measures.items() if any(value is not None for value in values)}
    scaled = {name: _scaled(values, name in measures) for name, values in columns.items()}
    shades = _shades([setting.mean("acc", "val") for setting in settings])
    data = []
    for number, setting in enumerate(settings):
        colour = CONTROL if setting.is_control else shades[number]
        width = 3.5 if setting is comparison.winner else 1.5
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(range(len(columns))),
                "y": [places[number] for places, _ in scaled.values()],
                "connectgaps": True,
                "line": {"color": colour, "width": width, "dash": "dot" if setting.is_control else "solid"},
                "marker": {"size": 5, "color": colour},
                "customdata": [_shown(values[number]) for values in columns.values()],
                "text": comparison.marked(setting),
                "hovertemplate": "%{text}<br>%{customdata}<extra></extra>",
                "showlegend": False,
            }
        )
    written = [
        {
            "x": column, "y": place, "text": text, "showarrow": False, "xanchor": "right", "xshift": -5,
            "font": {"size": 11}, "bgcolor": "rgba(255,255,255,0.75)",
        }
        for column, (_, ticks) in enumerate(scaled.values())
        for place, text in ticks
    ]  # fmt: skip
    lines = [
        {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "line": {"color": "#b8c0c8", "width": 1}, "layer": "below"}
        for i in range(len(columns))
    ]
    layout = {
        "xaxis": {
            "tickvals": list(range(len(columns))),
            "ticktext": [_wrapped(name, 10) for name in columns],
            "side": "top",
            "range": [-0.02, len(columns) - 0.98],
            "showgrid": False,
            "showline": False,
            "fixedrange": True,
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "annotations": written,
        "shapes": lines,
        "margin": {
            "l": 15 + 7 * max(len(text) for _, ticks in itertools.islice(scaled.values(), 1) for _, text in ticks),
            "r": 40,
        },
        "height": 400,
    }
    return {"data": data, "layout": layout}


def learning_curves(comparison: Comparison, name: str) -> Plot | None:
    """A column of metrics.csv over the epochs: means over seeds, and the range of the seeds of control and winner.

    Args:
        comparison: what is compared; the chosen setting, its control and the next best on val are drawn.
        name: of the column: ``val/acc``, ``val/loss``, ``train/loss``.
    """
    first = [setting for setting in (comparison.winner, comparison.control) if setting]
    shown = [*first, *(setting for setting in comparison.ranked if setting not in first)][:_LINES]
    scale = 100 if name.endswith("/acc") else 1
    data: list[Plot] = []
    longest = 1
    for setting in reversed(shown):
        curves = [[row[name] * scale for row in run.epochs if name in row] for run in setting.runs]
        lengths = {len(curve) for curve in curves if curve}
        if not lengths:
            continue
        values = np.array([curve[: min(lengths)] for curve in curves if curve])
        epochs = list(range(values.shape[1]))
        longest = max(longest, len(epochs))
        colour = {id(comparison.winner): WINNER, id(comparison.control): CONTROL}.get(id(setting), OTHER)
        if colour != OTHER and len(values) > 1:
            data.append(_band(epochs, values, colour))
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if len(epochs) > 1 else "markers",
                "name": _wrapped(setting.label, 34) if colour != OTHER else "next best on val",
                "legendgroup": setting.label if colour != OTHER else "others",
                "showlegend": colour != OTHER or all(curve.get("legendgroup") != "others" for curve in data),
                "x": epochs,
                "y": [round(float(value), 4) for value in values.mean(0)],
                "line": {"color": colour, "width": 2.5 if colour != OTHER else 1.2},
                "hovertemplate": "epoch %{x}: %{y:.4~g}<extra>" + _wrapped(setting.label, 60) + "</extra>",
            }
        )
    if not data:
        return None
    title = {"val/acc": "accuracy on val, %", "val/loss": "loss on val", "train/loss": "loss on train"}[name]
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": max(1, math.ceil(longest / 10))},
        "yaxis": {"title": {"text": title}, "automargin": True},
        "legend": {"traceorder": "reversed"},
        "height": 400,
    }
    return {"data": data, "layout": layout}


def roc(comparison: Comparison) -> Plot | None:
    """Macro ROC curves on test of teacher, control and chosen student, means over seeds."""
    return _roc(
        (f"{name}  {area:.4f}", curve, {"color": colour, "width": 2.2})
        for name, colour, found in _kept_curves(comparison)
        if (drawn := _mean_curve(found, "macro"))
        for curve, area in [drawn]
    )


def roc_of_classes(comparison: Comparison, classes: Sequence[str]) -> Plot | None:
    """The chosen student's ROC curve on test for each class against the rest, means over seeds."""
    kept = [found for name, _, found in _kept_curves(comparison) if not name.startswith("teacher")][-1:]
    numbers = [number for number in (kept[0][0].get("roc", ()) if kept else ()) if number != "macro"]
    few = len(numbers) <= len(_CLASSES)
    return _roc(
        (
            f"{_short(classes[int(number)], 18)}  {area:.4f}",
            curve,
            {"color": _CLASSES[place % len(_CLASSES)], "width": 1.4 if few else 1},
        )
        for place, number in enumerate(numbers)
        if (drawn := _mean_curve(kept[0], number))
        for curve, area in [drawn]
    )


def confusions(comparison: Comparison, classes: Sequence[str]) -> dict[str, Plot]:
    """Confusion matrices on test of teacher, control and chosen student, summed over seeds."""
    found = {}
    for name, _, kept in _kept_curves(comparison):
        matrices = [curves["confusion"] for curves in kept if "confusion" in curves]
        if matrices:
            found[name] = _confusion(np.sum(matrices, axis=0), classes)
    return found


def costs(comparison: Comparison, measure: str) -> Plot | None:
    """Test accuracy against a cost.

    Args:
        comparison: what is compared.
        measure: ``parameters``, ``macs`` or ``seconds`` (of training).
    """
    points: list[tuple[str, str, float, float, tuple[float, float] | None]] = []
    for setting in comparison.settings:
        spent, accuracy = [_cost(run, measure) for run in setting.runs], setting.mean("acc")
        known = [value for value in spent if value is not None]
        if known and accuracy is not None:
            kind = "control" if setting.is_control else "chosen" if setting is comparison.winner else "distilled"
            points.append((kind, setting.label, float(np.mean(known)), accuracy, setting.interval("acc")))
    samples = _samples(comparison)
    for name, teacher in comparison.teachers.items():
        if measure in teacher.get("model", {}):
            share = teacher["test"]["acc"]
            interval = wilson(share, samples) if samples else None
            points.append(("teacher", name, teacher["model"][measure], share, interval))
    if not points:
        return None
    data = []
    for kind, colour, symbol in (
        ("distilled", OTHER, "circle"),
        ("control", CONTROL, "square"),
        ("chosen", WINNER, "star"),
        ("teacher", TEACHER, "diamond"),
    ):
        of = [point for point in points if point[0] == kind]
        if of:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [x for *_, x, _, _ in of],
                    "y": [100 * y for *_, y, _ in of],
                    "error_y": _error_bars([(y, interval) for *_, y, interval in of]),
                    "marker": {"color": colour, "symbol": symbol, "size": 12 if kind != "distilled" else 8},
                    "text": [label for _, label, *_ in of],
                    "hovertemplate": "%{text}<br>%{x:,.4~s}, accuracy %{y:.2f} %<extra>" + kind + "</extra>",
                }
            )
    values = [x for *_, x, _, _ in points if x > 0]
    wide = bool(values) and max(values) > 10 * min(values)
    title = {"parameters": "parameters", "macs": "multiply-accumulates a sample", "seconds": "seconds of training"}
    layout = {
        "xaxis": {"title": {"text": title[measure]}, "type": "log" if wide else "linear"}
        | ({} if measure == "seconds" else {"tickformat": "~s"})
        | ({} if wide else {"rangemode": "tozero"}),
        "yaxis": {"title": {"text": "test accuracy, %"}, "automargin": True},
        "height": 340,
    }
    return {"data": data, "layout": layout}


def condition(curve: Curve) -> Plot:
    """Test accuracy of teacher, control and students along a condition of the training data, with 95 % intervals."""
    data = [_points("teacher", TEACHER, [(dose, share, None) for dose, share in curve.teacher.items()], dash="dot")]
    for line, colour in _coloured(curve):
        found = [(x, setting.mean("acc"), setting.interval("acc")) for x, setting in line.settings.items()]
        known = [(x, mean, interval) for x, mean, interval in found if mean is not None]
        data.append(_points(line.label, colour, known))
    return {"data": data, "layout": _over(curve.axis, "accuracy on test, %")}


def condition_gains(curve: Curve) -> Plot | None:
    """The students' gains over the control along a condition, paired by seed, with 95 % intervals."""
    data = []
    for line, colour in _coloured(curve):
        found = [(x, setting.gain) for x, setting in line.settings.items()]
        known = [(x, gain.mean, gain.interval) for x, gain in found if gain is not None]
        if known:
            data.append(_points(line.label, colour, known))
    if not data:
        return None
    layout = _over(curve.axis, "gain over the control, points")
    layout["yaxis"]["zeroline"] = True
    return {"data": data, "layout": layout}


def _coloured(curve: Curve) -> list[tuple[Line, str]]:
    controls = [(curve.control, CONTROL)] if curve.control else []
    return controls + [(line, _CLASSES[place % len(_CLASSES)]) for place, line in enumerate(curve.students)]


def _over(axis: str, title: str) -> Plot:
    words = CONDITIONS.get(axis, axis)
    return {
        "xaxis": {"title": {"text": words}, "type": "log" if axis in IN_RATIOS else "linear"},
        "yaxis": {"title": {"text": title}, "automargin": True},
        "height": 400,
    }


def _points(
    name: str, colour: str, points: Sequence[tuple[float, float, tuple[float, float] | None]], dash: str = "solid"
) -> Plot:
    """A line through shares, with their intervals."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _wrapped(name, 34),
        "x": [x for x, *_ in points],
        "y": [round(100 * y, 4) for _, y, _ in points],
        "error_y": _error_bars([(y, interval) for _, y, interval in points]) | {"color": colour},
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "%{x}: %{y:.2f}<extra>" + _wrapped(name, 60) + "</extra>",
    }


ROLES = {"teacher": TEACHER, "control": CONTROL, "student": WINNER}
"""Of a robustness report, and their colours."""

Reports = Sequence[Mapping[str, Any]]
"""Contents of robustness.json, of one setting: a run each."""


def doses(reports: Reports, axis: str, name: str) -> Plot:
    """Accuracy of each network over the dose of a perturbation, from the clean test set on; intervals over seeds."""
    data = []
    for role, colour in ROLES.items():
        found = _accuracies(reports, role, lambda row: _is_of(axis, name, row) or _is_clean(row))
        if found:
            data.append(_points(role, colour, found))
    title = "eps" if axis == "attacks" else "dose"
    return {"data": data, "layout": _over(title, "accuracy on test, %")}


def severities(reports: Reports, axis: str) -> Plot:
    """Accuracy of each network over severity, the mean over the corruptions; intervals over seeds."""
    found = {role: over_severity(reports, axis, role) for role in ROLES}
    data = [_points(role, ROLES[role], points) for role, points in found.items() if points]
    return {"data": data, "layout": _over("severity", "accuracy on test, %")}


def over_severity(reports: Reports, axis: str, role: str) -> list[tuple[float, float, tuple[float, float] | None]]:
    """Severity (0: clean), a network's mean accuracy over corruptions and seeds, and its interval over seeds."""
    return _accuracies(reports, role, lambda row: row["axis"] == axis or _is_clean(row))


def corruptions(reports: Reports, axis: str) -> Plot:
    """Accuracy of each network under each corruption, the mean over severities; intervals over seeds."""
    names = list(dict.fromkeys(row["name"] for row in reports[0]["cells"] if row["axis"] == axis))
    data = []
    for role, colour in ROLES.items():
        found = [(name, values) for name in names if (values := _by_seed(reports, role, partial(_is_of, axis, name)))]
        means = [(float(np.mean(values)), t_interval(values)) for _, values in found]
        if found:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": role,
                    "x": [round(100 * mean, 4) for mean, _ in means],
                    "y": [name for name, _ in found],
                    "error_x": _error_bars(means) | {"color": colour},
                    "marker": {"color": colour, "size": 8},
                    "hovertemplate": "%{y}: %{x:.2f} %<extra>" + role + "</extra>",
                }
            )
    layout = {
        "xaxis": {"title": {"text": "accuracy on test, mean over severities, %"}},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
        "height": 160 + 24 * len(names),
    }
    return {"data": data, "layout": layout}


def reliability(reports: Reports, role: str) -> Plot | None:
    """Accuracy over confidence of a network, as it is and temperature-scaled; the first seed."""
    diagram = reports[0]["reliability"].get(role)
    if not diagram:
        return None
    data = []
    for key, dash in (("plain", "solid"), ("scaled", "dash")):
        known = [
            (round(confidence, 4), accuracy, None)
            for confidence, accuracy in zip(diagram[key]["confidence"], diagram[key]["accuracy"], strict=True)
            if confidence is not None and accuracy is not None
        ]
        data.append(_points("as it is" if key == "plain" else "temperature fitted on val", ROLES[role], known, dash))
    layout = _over("confidence", "accuracy, %")
    layout["shapes"] = [{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 100, "line": {"color": OTHER, "dash": "dot"}}]
    layout["xaxis"]["range"], layout["yaxis"]["range"] = [0, 1.02], [0, 102]
    return {"data": data, "layout": layout}


def _is_of(axis: str, name: str, row: Mapping[str, Any]) -> bool:
    return bool(row["axis"] == axis and row["name"] == name)


def _is_clean(row: Mapping[str, Any]) -> bool:
    return bool(row["axis"] == "clean")


def _by_seed(reports: Reports, role: str, wanted: Callable[[Mapping[str, Any]], bool]) -> list[float]:
    """Of each report the mean accuracy over its wanted cells."""
    found = []
    for report in reports:
        accuracies = [row["acc"] for row in report["cells"] if row["model"] == role and wanted(row)]
        if accuracies:
            found.append(float(np.mean(accuracies)))
    return found


def _accuracies(
    reports: Reports, role: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> list[tuple[float, float, tuple[float, float] | None]]:
    """Dose, mean accuracy over seeds and its interval."""
    doses = sorted({row["dose"] for row in reports[0]["cells"] if row["model"] == role and wanted(row)})

    def at(dose: float) -> list[float]:
        return _by_seed(reports, role, lambda row: wanted(row) and row["dose"] == dose)

    return [(dose, float(np.mean(values)), t_interval(values)) for dose in doses if (values := at(dose))]


def _samples(comparison: Comparison) -> int | None:
    """Size of the test split on which teacher, control and chosen student are shown."""
    shown = comparison.winner or comparison.control
    return shown.runs[0].results.get("samples", {}).get("test") if shown else None


def varies(axis: str, comparison: Comparison) -> bool:
    """Whether the distilled settings differ in it."""
    return len({plain(setting.axes.get(axis)) for setting in comparison.distilled}) > 1


def _steps(values: Iterable[Any]) -> list[str]:
    """Each value once, as it is written: numbers in their order, then words in theirs."""
    found = {plain(value): value for value in values}
    numbers = [text for text, value in found.items() if isinstance(value, int | float)]
    return sorted(numbers, key=lambda text: found[text]) + sorted(found.keys() - set(numbers))


def _in_percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _scaled(values: Sequence[Any], measured: bool) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Heights in [0, 1], and the heights and texts of the ticks; swept values stand at equal distances."""
    known = [value for value in values if value is not None]
    if not measured:
        steps = _steps(known)
        places = {step: (i / (len(steps) - 1) if len(steps) > 1 else 0.5) for i, step in enumerate(steps)}
        ticks = list(places.items())[:: max(1, math.ceil(len(steps) / 9))]
        return [None if v is None else places[plain(v)] for v in values], [(place, _short(t, 12)) for t, place in ticks]
    low, high = min(known), max(known)
    span = high - low or 1.0
    marks = [low, (low + high) / 2, high] if high > low else [low]
    return [None if v is None else (v - low) / span for v in values], [((m - low) / span, f"{m:.2f}") for m in marks]


def _shades(values: Sequence[float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    shades = []
    for value in values:
        place = 0.5 if value is None or high == low else (value - low) / (high - low)
        channels = [round(float(np.interp(place, np.linspace(0, 1, len(_CIVIDIS)), channel))) for channel in _CIVIDIS.T]
        shades.append(f"rgb({channels[0]},{channels[1]},{channels[2]})")
    return shades


def _band(epochs: Sequence[int], values: np.ndarray, colour: str) -> Plot:
    low, high = values.min(0).tolist(), values.max(0).tolist()
    return {
        "type": "scatter",
        "x": [*epochs, *reversed(epochs)],
        "y": [round(value, 4) for value in (*high, *reversed(low))],
        "fill": "toself",
        "fillcolor": _faded(colour, 0.12),
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _kept_curves(comparison: Comparison) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """Name, colour and, a run each, the curves that results.json kept of teacher, control and chosen student."""
    found: list[tuple[str, str, list[Mapping[str, Any]]]] = []
    for name, teacher in itertools.islice(comparison.teachers.items(), 1):
        found.append((f"teacher {name}", TEACHER, [teacher["curves"]] if "curves" in teacher else []))
    for setting, colour in ((comparison.control, CONTROL), (comparison.winner, WINNER)):
        if setting:
            found.append((setting.label, colour, [r.results["curves"] for r in setting.runs if "curves" in r.results]))
    return [(name, colour, curves) for name, colour, curves in found if curves]


def _mean_curve(kept: Sequence[Mapping[str, Any]], name: str) -> tuple[tuple[list[float], list[float]], float] | None:
    having = [curves for curves in kept if name in curves.get("roc", {})]
    if not having:
        return None
    tpr = np.mean([curves["roc"][name] for curves in having], axis=0)
    return (having[0]["fpr"], [round(float(v), 4) for v in tpr]), float(np.mean([c["auc"][name] for c in having]))


def _roc(curves: Any) -> Plot | None:
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": fpr,
            "y": tpr,
            "line": line,
            "hovertemplate": "%{x:.3f}, %{y:.3f}<extra>" + name + "</extra>",
        }
        for name, (fpr, tpr), line in curves
    ]
    if not data:
        return None
    chance = {"color": "#b8c0c8", "width": 1, "dash": "dot"}
    layout = {
        "xaxis": {"title": {"text": "false positive rate"}, "range": [-0.02, 1.02]},
        "yaxis": {"title": {"text": "true positive rate"}, "range": [-0.02, 1.02]},
        "shapes": [{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": chance}],
        "legend": {
            "title": {"text": "area under the curve"},
            "orientation": "v",
            "x": 0.99,
            "y": 0.02,
            "xanchor": "right",
            "yanchor": "bottom",
            "bgcolor": "rgba(255,255,255,0.85)",
            "font": {"size": 11 if len(data) <= len(_CLASSES) else 9},
        },
        "height": 430,
    }
    return {"data": data, "layout": layout}


def _confusion(counts: np.ndarray, classes: Sequence[str]) -> Plot:
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [_short(name, 12) for name in classes]
    few = len(counts) <= _COUNTED
    data = [
        {
            "type": "heatmap",
            "x": names,
            "y": names,
            # By its root: a rare confusion is still seen beside a frequent one.
            "z": np.sqrt(share).round(4).tolist(),
            "zmin": 0,
            "zmax": 1,
            "colorscale": _SCALE,
            "showscale": False,
            "text": [[str(count) if count else "" for count in row] for row in counts.tolist()],
            "texttemplate": "%{text}" if few else "",
            "customdata": np.dstack((counts, (100 * share).round(2))).tolist(),
            "hovertemplate": "true %{y}, predicted %{x}<br>%{customdata[0]} samples, %{customdata[1]} % of the class"
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


def _cost(run: Run, measure: str) -> float | None:
    of = run.results.get("cost", {}).get("seconds", {}) if measure == "seconds" else run.results.get("model", {})
    value = of.get("fit" if measure == "seconds" else measure)
    return None if value is None else float(value)


def _error_bars(values: Sequence[tuple[float, tuple[float, float] | None]]) -> Plot:
    return {
        "type": "data",
        "symmetric": False,
        "array": [100 * (interval[1] - value) if interval else None for value, interval in values],
        "arrayminus": [100 * (value - interval[0]) if interval else None for value, interval in values],
        "thickness": 1.4,
        "width": 4,
        "color": "#333",
    }


def _mirrored(interval: tuple[float, float]) -> tuple[float, float]:
    return 1 - interval[1], 1 - interval[0]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _wrapped(text: str, most: int = 22) -> str:
    """The text with line breaks between words, in lines of about so many characters."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= most:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(_short(line, 2 * most) for line in lines)
