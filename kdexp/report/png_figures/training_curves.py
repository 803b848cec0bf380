"""Loss of one run, and what it is compared by, over the epochs."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from kdexp.report import glossary
from kdexp.report.colors import BLUE, GREEN, ORANGE
from kdexp.report.png_figures.drawing import draw_line, in_unit, new_figure, save


def training_curves(rows: Sequence[Mapping[str, float]], path: Path, measure: str = "acc") -> None:
    """Draw loss and a metric of train and val over the epochs, and alpha and temperature where they change.

    Args:
        rows: one an epoch, in order, with ``epoch`` and any of ``train/loss``, ``val/loss``, ``train/MEASURE``,
            ``val/MEASURE``, ``train/alpha``, ``train/temperature``.
        path: the PNG file.
        measure: the metric.
    """
    scheduled = [name for name in ("alpha", "temperature") if len({v for _, v in _series(rows, f"train/{name}")}) > 1]
    margins = {"left": 0.07, "right": 0.98, "bottom": 0.13 if not scheduled else 0.08, "top": 0.92, "hspace": 0.3}
    figure = new_figure(9.6, 3.8 if not scheduled else 6.4, **margins)
    panels = figure.subplots(2 if scheduled else 1, 2, squeeze=False, height_ratios=[3, 2] if scheduled else [1])
    titles = {"loss": "loss", measure: glossary.known(measure).name}
    for axes, (name, label) in zip(panels[0], titles.items(), strict=True):
        for split, color, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
            draw_line(axes, _series(rows, f"{split}/{name}"), color, marker, split)
        axes.set(title=label, xlabel="epoch")
        axes.legend(frameon=False)
    in_unit(panels[0][1], glossary.known(measure))
    for axes, name in zip_longest(panels[1] if scheduled else (), scheduled):
        if name is None:
            axes.set_axis_off()
        else:
            draw_line(axes, _series(rows, f"train/{name}"), GREEN, "^", name)
            axes.set(title=name, xlabel="epoch")
    save(figure, path)


def _series(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[name]) for row in rows if name in row]
