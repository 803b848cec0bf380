"""The figures of a robustness report."""

from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdexp.report.colors import GRAY, MARKED_ROLES
from kdexp.report.png_figures.drawing import draw_estimates, draw_line, new_figure, save
from kdexp.report.robustness import Report, Reports, measure_of, metric_of, over_severity


def severities(reports: Reports, axis: str, path: Path) -> None:
    """Draw the measure of each network over the severity of corruptions, the mean over them.

    Bars are 95 % t intervals over seeds; fewer than three have none.

    Args:
        reports: contents of robustness.json of one configuration, a seed each.
        axis: the corruptions.
        path: the PNG file.
    """
    figure = new_figure(4.8, 3.8)
    axes = figure.add_subplot()
    for role, (color, marker) in _present(reports[0]):
        draw_estimates(axes, over_severity(reports, axis, role), color, marker, role)
    axes.set(xlabel="severity", title=f"{metric_of(reports[0]).name} on test, mean over {axis}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    save(figure, path)


def corruptions(report: Report, path: Path) -> None:
    """Draw each network's measure under each corruption, the mean over severities; no file where there are none.

    Args:
        report: the content of robustness.json.
        path: the PNG file.
    """
    rows = [row for row in report["conditions"] if row["axis"] == "corruptions_lite"]
    if not rows:
        return
    names, key = list(dict.fromkeys(row["name"] for row in rows)), measure_of(report)
    figure = new_figure(7.2, 1.4 + 0.26 * len(names))
    axes = figure.add_subplot()
    for role, (color, marker) in _present(report):
        means = [np.mean([row[key] for row in rows if row["name"] == name and row["model"] == role]) for name in names]
        axes.plot(means, names, color=color, marker=marker, linestyle="", markersize=5, label=role, alpha=0.85)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel=f"{metric_of(report).name}, mean over severities", title="corruptions (lite)")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def levels(report: Report, path: Path) -> None:
    """Draw the measure over the level: a panel for each noise and each attack; no file where there are none.

    Args:
        report: the content of robustness.json.
        path: the PNG file.
    """
    found = [row for row in report["conditions"] if row["axis"] in ("noise_levels", "attacks")]
    names = list(dict.fromkeys((row["axis"], row["name"]) for row in found))
    if not names:
        return
    key = measure_of(report)
    clean = {row["model"]: row[key] for row in report["conditions"] if row["axis"] == "clean"}
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = new_figure(3.4 * columns, 2.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, place in zip_longest(panels.flat, names):
        if place is None:
            axes.set_axis_off()
            continue
        for role, (color, marker) in _present(report):
            curve = [(r["level"], r[key]) for r in found if (r["axis"], r["name"]) == place and r["model"] == role]
            draw_line(axes, [(0, clean[role]), *curve], color, marker, role)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(title=place[1], xlabel="eps" if place[0] == "attacks" else "level")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def reliability(report: Report, path: Path) -> None:
    """Draw the reliability diagram of each network, as it is and temperature-scaled; no file without calibration.

    Args:
        report: the content of robustness.json.
        path: the PNG file.
    """
    diagrams = report["reliability"]
    if not diagrams:
        return
    figure = new_figure(3.4 * len(diagrams), 3.4)
    panels = figure.subplots(1, len(diagrams), squeeze=False, sharey=True)[0]
    for axes, (role, (color, _)) in zip(panels, _present(report), strict=True):
        diagram = diagrams[role]
        axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
        calibration = report["metrics"]["calibration"]
        for key, style in (("plain", "-"), ("scaled", "--")):
            points = [
                p for p in zip(diagram[key]["confidence"], diagram[key]["accuracy"], strict=True) if None not in p
            ]
            error = calibration["ece" if key == "plain" else "ece_scaled"][role]
            label = f"{key}  ECE {100 * error:.1f} %"
            axes.plot(*zip(*points, strict=True), style, color=color, marker="o", markersize=3.5, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=role, xlabel="confidence")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left", fontsize=8)
    panels[0].set_ylabel("accuracy of pixels" if metric_of(report).counted == "pixels" else "accuracy")
    save(figure, path)


def _present(report: Report) -> list[tuple[str, tuple[str, str]]]:
    return [(role, style) for role, style in MARKED_ROLES.items() if role in report["models"]]
