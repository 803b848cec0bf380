"""Test images above what each network makes of them, and what each makes up."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kdexp.report.image_examples import ImageExamples
from kdexp.report.png_figures.drawing import new_figure, save

_PANEL, _NAMES = 0.9, 2.2  # width of a picture and of the names beside the rows, in inches


def images(examples: ImageExamples, path: Path) -> None:
    """Draw `images_figure` into a PNG file."""
    save(images_figure(examples), path)


def images_figure(examples: ImageExamples) -> Figure:
    """A row of test images, one of each network's reconstructions, and one of each network's samples."""
    rows = rows_of(examples)
    count, _, height, width = examples.images.shape
    across, down = _NAMES + _PANEL * count, _PANEL * height / width * len(rows)
    margins = {"left": _NAMES / across, "right": 0.995, "bottom": 0.01, "top": 0.99, "wspace": 0.05, "hspace": 0.05}
    figure = new_figure(across, down, **margins)
    panels = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, shown) in zip(panels, rows.items(), strict=True):
        for axes, image in zip(line, shown, strict=True):
            picture = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def rows_of(examples: ImageExamples) -> dict[str, np.ndarray]:
    """What stands beside a row -> its images."""
    rebuilt = {f"{name}, reconstructed": of for name, of in examples.rebuilt.items()}
    sampled = {f"{name}, sampled": of for name, of in examples.sampled.items()}
    return {"test images": examples.images, **rebuilt, **sampled}
