"""What the networks do under corruptions, noise and attacks, and calibration."""

from functools import partial

from kdexp.report.colors import OTHER, ROLES
from kdexp.report.plotly_figures.drawing import Plot, error_bars, layout_over, line_trace
from kdexp.report.robustness import (
    Reports,
    by_seed,
    is_clean,
    is_of,
    level_points,
    mean_over_seeds,
    metric_of,
    over_severity,
)
from kdexp.report.statistics import Estimate, Point


def levels(reports: Reports, axis: str, name: str) -> Plot:
    """The measure of each network over the level of a noise or an attack, from the clean test set on.

    Args:
        reports: of one configuration, a seed each; intervals are over them.
        axis: ``noise_levels`` or ``attacks``.
        name: of the noise or the attack.
    """
    found = {role: level_points(reports, role, lambda row: is_of(axis, name, row) or is_clean(row)) for role in ROLES}
    data = [line_trace(role, ROLES[role], points) for role, points in found.items() if points]
    title = "eps" if axis == "attacks" else "level"
    return {"data": data, "layout": layout_over(title, f"{metric_of(reports[0]).name} on test, %")}


def severities(reports: Reports, axis: str) -> Plot:
    """The measure of each network over severity, the mean over the corruptions; intervals over seeds."""
    found = {role: over_severity(reports, axis, role) for role in ROLES}
    data = [line_trace(role, ROLES[role], points) for role, points in found.items() if points]
    return {"data": data, "layout": layout_over("severity", f"{metric_of(reports[0]).name} on test, %")}


def corruptions(reports: Reports, axis: str) -> Plot:
    """The measure of each network under each corruption, the mean over severities; intervals over seeds."""
    names = list(dict.fromkeys(row["name"] for row in reports[0]["conditions"] if row["axis"] == axis))
    data = []
    for role, color in ROLES.items():
        found = {name: by_seed(reports, role, partial(is_of, axis, name)) for name in names}
        means = {name: mean_over_seeds(values) for name, values in found.items() if values}
        if means:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": role,
                    "x": [round(100 * mean.value, 4) for mean in means.values()],
                    "y": list(means),
                    "error_x": error_bars(means.values()) | {"color": color},
                    "marker": {"color": color, "size": 8},
                    "hovertemplate": "%{y}: %{x:.2f} %<extra>" + role + "</extra>",
                }
            )
    layout = {
        "xaxis": {"title": {"text": f"{metric_of(reports[0]).name} on test, mean over severities, %"}},
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
    for key, name, dash in (("plain", "as it is", "solid"), ("scaled", "temperature fitted on val", "dash")):
        known = [
            Point(round(confidence, 4), Estimate(accuracy))
            for confidence, accuracy in zip(diagram[key]["confidence"], diagram[key]["accuracy"], strict=True)
            if confidence is not None and accuracy is not None
        ]
        data.append(line_trace(name, ROLES[role], known, dash))
    of = "accuracy of pixels" if metric_of(reports[0]).counted == "pixels" else "accuracy"
    layout = layout_over("confidence", f"{of}, %")
    layout["shapes"] = [{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 100, "line": {"color": OTHER, "dash": "dot"}}]
    layout["xaxis"]["range"], layout["yaxis"]["range"] = [0, 1.02], [0, 102]
    return {"data": data, "layout": layout}
