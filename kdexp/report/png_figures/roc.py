"""The ROC curves of one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.report.colors import GRAY
from kdexp.report.png_figures.drawing import NAMED_CLASSES, new_figure, save, shortened

if TYPE_CHECKING:
    from kdexp.metrics.roc_and_confusion import RocAndConfusion  # not at run time: pictures of results need no torch


def roc(curves: "RocAndConfusion", classes: Sequence[str], path: Path) -> None:
    """Draw the ROC curves: the macro mean over all classes, and each class's own (named up to ten classes).

    Args:
        curves: see `kdexp.metrics.roc_and_confusion.RocAndConfusion`.
        classes: names of the classes, by number.
        path: the PNG file.
    """
    figure = new_figure(7.6, 5.2, left=0.09, right=0.68, bottom=0.1, top=0.94)
    title = "ROC, one class against the rest" if len(curves.roc) > 1 else "ROC"
    axes = figure.add_subplot()
    named = len(curves.roc) <= NAMED_CLASSES
    palette = [f"C{i}" for i in range(NAMED_CLASSES)]
    for place, (number, (fpr, tpr)) in enumerate(curves.roc.items()):
        label = f"{shortened(classes[number])}  {curves.auc[number]:.3f}"
        style = {"color": palette[place], "label": label} if named else {"color": GRAY, "alpha": 0.35}
        axes.plot(fpr, tpr, linewidth=1.2 if named else 0.6, **style)
    if curves.macro is None:
        axes.text(0.5, 0.55, "no class has both positive and negative samples", ha="center")
    elif len(curves.roc) > 1:
        axes.plot(
            *curves.macro, color="black", linewidth=2.2, label=f"mean of {len(curves.roc)}  {curves.macro_auc:.3f}"
        )
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":", label="chance  0.500")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    axes.grid(alpha=0.25)
    figure.legend(title="area under the curve", loc="center right", frameon=False, alignment="left")
    save(figure, path)
