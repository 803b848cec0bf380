"""Masks side by side: image, truth, and what each network says, its errors coloured."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kdexp.report.colors import CLASSES, GRAY, ORANGE, SKY
from kdexp.report.mask_examples import MaskExample
from kdexp.report.png_figures.drawing import NAMED_CLASSES, new_figure, save, shortened

_PANEL, _NAME = 2.6, 1.7  # width of a picture and of a name in the legend, in inches
_PALE = 0.7  # how much white is in the colors of what is right
_NO_LABEL = "no label"


def masks(examples: Sequence[MaskExample], classes: Sequence[str], path: Path) -> None:
    """Draw `masks_figure` into a PNG file."""
    save(masks_figure(examples, classes), path)


def masks_figure(examples: Sequence[MaskExample], classes: Sequence[str]) -> Figure:
    """A row for each example: its image, the truth, and the networks in their order.

    Of two classes the second is white where a network is right, and false positives and missed pixels have a color
    each. Of more classes what is right is pale, and errors have the full color of the class that was predicted. Pixels
    without a label are gray. Beside an image stands its number, under each network its `score`.

    Args:
        examples: at least one.
        classes: names of the classes, by number.
    """
    columns = ["image", "truth", *examples[0].predictions]
    named = _legend(classes) + ([(_NO_LABEL, GRAY)] if _has_gaps(examples) else [])
    width = _PANEL * len(columns)
    across = int(width / _NAME)
    height = sum(_PANEL * example.truth.shape[0] / example.truth.shape[1] + 0.3 for example in examples)
    figure = new_figure(width, height + 0.7 + 0.2 * -(-len(named) // across))
    panels = figure.subplots(len(examples), len(columns), squeeze=False)
    for row, example in zip(panels, examples, strict=True):
        shown = [_image(example.image), _colored(example.truth, example.truth, len(classes))]
        shown += [_colored(mask, example.truth, len(classes)) for mask in example.predictions.values()]
        for axes, picture in zip(row, shown, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
        for axes, mask in zip(row[2:], example.predictions.values(), strict=True):
            axes.set_xlabel(score(mask, example.truth, len(classes)))
        row[0].set_ylabel(f"test image {example.sample}")
    for axes, name in zip(panels[0], columns, strict=True):
        axes.set_title(name)
    patches = [Patch(facecolor=color, edgecolor=GRAY, label=name) for name, color in named]
    title = None if len(classes) == 2 else "pale: correct; full color: an error, the class that was predicted"
    figure.legend(handles=patches, loc="outside lower center", ncols=across, frameon=False, title=title)
    return figure


def _image(image: np.ndarray) -> np.ndarray:
    gray = image.mean(0).astype(np.uint8)
    return image.transpose(1, 2, 0) if len(image) == 3 else np.stack([gray] * 3, -1)


def _colored(mask: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    picture: np.ndarray
    if classes == 2:
        colors = np.array([to_rgb(color) for color in ("black", ORANGE, SKY, "white")])
        picture = colors[2 * (truth == 1) + (mask == 1)]
    else:
        full = np.array([to_rgb(_class_color(number)) for number in range(classes)])
        own = full[np.maximum(mask, 0)]
        picture = np.where((mask == truth)[..., None], own + (1 - own) * _PALE, own)
    picture[truth < 0] = to_rgb(GRAY)
    return picture


def _class_color(number: int) -> str:
    return CLASSES[number % len(CLASSES)]


def score(mask: np.ndarray, truth: np.ndarray, classes: int) -> str:
    """How good a mask is on the labelled pixels, in words: of two classes Dice of the second, of more the error."""
    known = truth >= 0
    mask, truth = mask[known], truth[known]
    if not len(truth):
        return _NO_LABEL
    if classes > 2:
        return f"pixel error {100 * np.mean(mask != truth):.1f} %"
    sizes = np.sum(mask == 1) + np.sum(truth == 1)
    return f"Dice {200 * np.sum((mask == 1) & (truth == 1)) / sizes:.1f} %" if sizes else "Dice not defined"


def _legend(classes: Sequence[str]) -> list[tuple[str, str]]:
    """What the colors mean: in words, and the color."""
    names = [shortened(name) for name in classes]
    if len(names) == 2:
        return [(names[1], "white"), ("false positive", ORANGE), ("missed", SKY), (names[0], "black")]
    return [(name, _class_color(number)) for number, name in enumerate(names)] if len(names) <= NAMED_CLASSES else []


def _has_gaps(examples: Sequence[MaskExample]) -> bool:
    return any((example.truth < 0).any() for example in examples)
