"""The figures of one finished run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.report.mask_examples import MaskExample
from kdexp.report.png_figures.confusion import confusion
from kdexp.report.png_figures.masks import masks
from kdexp.report.png_figures.roc import roc
from kdexp.report.png_figures.training_curves import training_curves

if TYPE_CHECKING:
    from kdexp.metrics.roc_and_confusion import RocAndConfusion  # not at run time: pictures of results need no torch

MASKS, IMAGES = "masks.png", "images.png"
"""The pictures of examples, among a run's figures."""


def draw_run(
    epochs: Sequence[Mapping[str, float]],
    measure: str,
    curves: "RocAndConfusion | None",
    examples: Sequence[MaskExample],
    classes: Sequence[str],
    folder: Path,
) -> None:
    """Draw training.png, and of a task that has them roc.png, confusion.png (not for multilabel data) and masks.png.

    Args:
        epochs: the rows of metrics.csv.
        measure: the metric that the run is compared by.
        curves: ROC curves and confusion matrix on test; None of a task without.
        examples: test images with masks; none of a task without.
        classes: names of the classes, by number.
        folder: where the files go.
    """
    training_curves(epochs, folder / "training.png", measure)
    if curves is not None:
        roc(curves, classes, folder / "roc.png")
        confusion(curves, classes, folder / "confusion.png")
    if examples:
        masks(examples, classes, folder / MASKS)
