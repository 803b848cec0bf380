"""The figures of one run, and of its robustness, as PNG files."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdexp.atomic import atomic_path
from kdexp.report.curves import CONDITIONS, IN_RATIOS, Curve
from kdexp.report.plots import Reports, over_severity

if TYPE_CHECKING:
    from kdexp.metrics import CurveData  # not at run time: pictures of results need no torch

# Colours that people with any kind of colour vision can tell apart (Okabe and Ito 2008).
_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"
_SQRT = PowerNorm(0.5, vmin=0, vmax=1)  # a rare confusion is still seen beside a frequent one
_NAMED_CLASSES = 10  # more curves than these get no names
_COUNTED_CLASSES = 20  # more rows than these get no names and no counts


def roc(curves: "CurveData", classes: Sequence[str], path: Path) -> None:
    """Draw the ROC curves: the macro mean over all classes, and each class's own (named up to ten classes).

    Args:
        curves: see `kdexp.metrics.Curves`.
        classes: names of the classes, by number.
        path: the PNG file.
    """
    figure = _figure(7.6, 5.2, left=0.09, right=0.68, bottom=0.1, top=0.94)
    title = "ROC, one class against the rest" if len(curves.roc) > 1 else "ROC"
    axes = figure.add_subplot()
    named = len(curves.roc) <= _NAMED_CLASSES
    palette = [f"C{i}" for i in range(_NAMED_CLASSES)]
    for place, (number, (fpr, tpr)) in enumerate(curves.roc.items()):
        label = f"{_short(classes[number])}  {curves.auc[number]:.3f}"
        style = {"color": palette[place], "label": label} if named else {"color": _GREY, "alpha": 0.35}
        axes.plot(fpr, tpr, linewidth=1.2 if named else 0.6, **style)
    if curves.macro is None:
        axes.text(0.5, 0.55, "no class has both positive and negative samples", ha="center")
    elif len(curves.roc) > 1:
        axes.plot(
            *curves.macro, color="black", linewidth=2.2, label=f"mean of {len(curves.roc)}  {curves.macro_auc:.3f}"
        )
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="chance  0.500")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    axes.grid(alpha=0.25)
    figure.legend(title="area under the curve", loc="center right", frameon=False, alignment="left")
    _save(figure, path)


def confusion(curves: "CurveData", classes: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix, each row as shares of its true class; multilabel data have none, and get no file.

    Up to twenty classes have their names and counts written; above, only the picture and a few class numbers are.

    Args:
        curves: see `kdexp.metrics.Curves`.
        classes: names of the classes, by number.
        path: the PNG file.
    """
    if curves.confusion is None:
        return
    counts = np.array(curves.confusion)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(4.2, 0.55 * len(counts)), 8.0)
    names = [_short(name) for name in classes] if len(counts) <= _COUNTED_CLASSES else []
    slanted = any(len(name) > 3 for name in names)
    width = side + 1.4
    # In inches: the labels and the colour bar take as much room around few classes as around many.
    inches = {"left": 0.65 / width, "right": 1 - 0.25 / width, "bottom": 0.55 / side, "top": 1 - 0.35 / side}
    figure = _figure(width, side, **({} if slanted else inches))
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", norm=_SQRT, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class", format=PercentFormatter(1, decimals=0))
    axes.set(xlabel="predicted", ylabel="true", title=f"{np.trace(counts)} of {counts.sum()} right")
    if names:
        ticks = range(len(counts))
        axes.set_xticks(ticks, names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(ticks, names)
        _write_counts(axes, counts, share)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, path)


def _write_counts(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    size = 10 if len(counts) <= _NAMED_CLASSES else 7
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if _SQRT(share[row, column]) > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=size)


def training_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss and accuracy of train and val over the epochs, and alpha and temperature where they change.

    Args:
        rows: one an epoch, in order, with ``epoch`` and any of ``train/loss``, ``val/loss``, ``train/acc``,
            ``val/acc``, ``train/alpha``, ``train/temperature``.
        path: the PNG file.
    """
    scheduled = [name for name in ("alpha", "temperature") if len({v for _, v in _series(rows, f"train/{name}")}) > 1]
    margins = {"left": 0.07, "right": 0.98, "bottom": 0.13 if not scheduled else 0.08, "top": 0.92, "hspace": 0.3}
    figure = _figure(9.6, 3.8 if not scheduled else 6.4, **margins)
    panels = figure.subplots(2 if scheduled else 1, 2, squeeze=False, height_ratios=[3, 2] if scheduled else [1])
    for axes, name, label in zip(panels[0], ("loss", "acc"), ("loss", "accuracy"), strict=True):
        for split, color, marker in (("train", _BLUE, "o"), ("val", _ORANGE, "s")):
            _plot(axes, _series(rows, f"{split}/{name}"), color, marker, split)
        axes.set(title=label, xlabel="epoch")
        axes.legend(frameon=False)
    panels[0][1].yaxis.set_major_formatter(PercentFormatter(1))
    for axes, name in zip_longest(panels[1] if scheduled else (), scheduled):
        if name is None:
            axes.set_axis_off()
        else:
            _plot(axes, _series(rows, f"train/{name}"), _GREEN, "^", name)
            axes.set(title=name, xlabel="epoch")
    _save(figure, path)


# Curves over what was done to the training data (kdexp.report.curves)

_STUDENTS = (_BLUE, _GREEN, "#cc79a7", "#e69f00", "#56b4e9")


def condition(curve: Curve, path: Path) -> None:
    """Draw test accuracy, and the gain over the control, along a condition of the training data.

    Bars are 95 % t intervals over seeds; fewer than three have none.

    Args:
        curve: of teacher, control and students.
        path: the PNG file.
    """
    figure = _figure(9.6, 3.8)
    left, right = figure.subplots(1, 2)
    teacher = curve.teacher
    left.plot(list(teacher), list(teacher.values()), color=_GREY, linestyle=":", marker="D", markersize=3.5,
              label="teacher")  # fmt: skip
    if curve.control:
        _with_bars(left, [(x, s.mean("acc"), s.interval("acc")) for x, s in curve.control.settings.items()],
                   _ORANGE, "s", "control")  # fmt: skip
    for line, color in zip(curve.students, cycle(_STUDENTS), strict=False):
        found = line.settings.items()
        _with_bars(left, [(x, s.mean("acc"), s.interval("acc")) for x, s in found], color, "o", line.label)
        gains = [(x, s.gain.mean, s.gain.interval) for x, s in found if s.gain]
        _with_bars(right, gains, color, "o", line.label)
    right.axhline(0, color=_GREY, linewidth=1)
    for axes, words in ((left, "accuracy on test"), (right, "gain over the control, paired by seed")):
        axes.set(title=words, xlabel=CONDITIONS[curve.axis])
        if curve.axis in IN_RATIOS:
            axes.set_xscale("log")
            doses = sorted({dose for line in curve.lines for dose in line.settings})
            axes.set_xticks(doses, [f"{dose:g}" for dose in doses])
            axes.minorticks_off()
        axes.grid(alpha=0.25)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" points"))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


def severities(reports: Reports, axis: str, path: Path) -> None:
    """Draw the accuracy of each network over the severity of corruptions, the mean over them.

    Bars are 95 % t intervals over seeds; fewer than three have none.

    Args:
        reports: contents of robustness.json of one setting, a seed each.
        axis: the corruptions.
        path: the PNG file.
    """
    figure = _figure(4.8, 3.8)
    axes = figure.add_subplot()
    for role, (color, marker) in _present(reports[0]):
        _with_bars(axes, over_severity(reports, axis, role), color, marker, role)
    axes.set(xlabel="severity", title=f"accuracy on test, mean over {axis}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    _save(figure, path)


def _with_bars(
    axes: Axes,
    points: Iterable[tuple[float, float | None, tuple[float, float] | None]],
    color: str,
    marker: str,
    label: str,
) -> None:
    known = [(x, y, ends or (math.nan, math.nan)) for x, y, ends in points if y is not None]
    below, above = [y - low for _, y, (low, _) in known], [high - y for _, y, (_, high) in known]
    axes.errorbar([x for x, *_ in known], [y for _, y, _ in known], (below, above), color=color, marker=marker,
                  markersize=3.5, capsize=2, label=label)  # fmt: skip


# The robustness report (kdexp.evaluation)

_ROLES = {"teacher": (_GREY, "D"), "control": (_ORANGE, "s"), "student": (_BLUE, "o")}


def corruptions(report: Mapping[str, Any], path: Path) -> None:
    """Draw each network's accuracy under each corruption, the mean over severities; no file where there are none.

    Args:
        report: the content of robustness.json.
        path: the PNG file.
    """
    cells = [row for row in report["cells"] if row["axis"] == "corruptions_lite"]
    if not cells:
        return
    names = list(dict.fromkeys(row["name"] for row in cells))
    figure = _figure(7.2, 1.4 + 0.26 * len(names))
    axes = figure.add_subplot()
    for role, (color, marker) in _present(report):
        means = [
            np.mean([row["acc"] for row in cells if row["name"] == name and row["model"] == role]) for name in names
        ]
        axes.plot(means, names, color=color, marker=marker, linestyle="", markersize=5, label=role, alpha=0.85)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(xlabel="accuracy, mean over severities", title="corruptions (lite)")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def dose_curves(report: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy over dose: a panel for each noise and each attack; no file where there are none.

    Args:
        report: the content of robustness.json.
        path: the PNG file.
    """
    cells = [row for row in report["cells"] if row["axis"] in ("noise_dose", "attacks")]
    names = list(dict.fromkeys((row["axis"], row["name"]) for row in cells))
    if not names:
        return
    clean = {row["model"]: row["acc"] for row in report["cells"] if row["axis"] == "clean"}
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = _figure(3.4 * columns, 2.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, place in zip_longest(panels.flat, names):
        if place is None:
            axes.set_axis_off()
            continue
        for role, (color, marker) in _present(report):
            curve = [(r["dose"], r["acc"]) for r in cells if (r["axis"], r["name"]) == place and r["model"] == role]
            _plot(axes, [(0, clean[role]), *curve], color, marker, role)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(title=place[1], xlabel="eps" if place[0] == "attacks" else "dose")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def reliability(report: Mapping[str, Any], path: Path) -> None:
    """Draw the reliability diagram of each network, as it is and temperature-scaled; no file without calibration.

    Args:
        report: the content of robustness.json.
        path: the PNG file.
    """
    diagrams = report["reliability"]
    if not diagrams:
        return
    figure = _figure(3.4 * len(diagrams), 3.4)
    panels = figure.subplots(1, len(diagrams), squeeze=False, sharey=True)[0]
    for axes, (role, color, diagram) in zip(
        panels, [(role, color, diagrams[role]) for role, (color, _) in _present(report)], strict=True
    ):
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":")
        calibration = report["measures"]["calibration"]
        for key, style in (("plain", "-"), ("scaled", "--")):
            points = [
                p for p in zip(diagram[key]["confidence"], diagram[key]["accuracy"], strict=True) if None not in p
            ]
            error = calibration["ece" if key == "plain" else "ece_scaled"][role]
            axes.plot(*zip(*points, strict=True), style, color=color, marker="o", markersize=3.5,
                      label=f"{key}  ECE {100 * error:.1f} %")  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=role, xlabel="confidence")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left", fontsize=8)
    panels[0].set_ylabel("accuracy")
    _save(figure, path)


def _present(report: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    return [(role, style) for role, style in _ROLES.items() if role in report["models"]]


def _series(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[name]) for row in rows if name in row]


def _plot(axes: Axes, points: Sequence[tuple[float, float]], color: str, marker: str, label: str) -> None:
    # A point that stands alone makes no line, and a long line needs no points.
    axes.plot(
        [epoch for epoch, _ in points],
        [value for _, value in points],
        color=color,
        marker=marker if len(points) <= 20 else None,
        markersize=3.5,
        label=label,
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _figure(width: float, height: float, **margins: float) -> Figure:
    """Without margins they are measured, which takes as long as to draw."""
    figure = Figure(figsize=(width, height), dpi=150, layout=None if margins else "constrained")
    if margins:
        figure.subplots_adjust(**margins)
    return figure


def _save(figure: Figure, path: Path) -> None:
    # Not pyplot: no window system, and no state that outlives the figure. Nor savefig, which draws twice for a layout.
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)  # type: ignore[no-untyped-call]
