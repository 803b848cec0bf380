"""Which classes are mistaken for which?"""

from collections.abc import Iterator

from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.confusion import confusions


def sections(comparison: Comparison) -> Iterator[Section]:
    """The confusion matrices, as far as they are kept."""
    if not comparison.groups:
        return
    matrices = confusions(comparison, comparison.class_names)
    if not matrices:
        reason = "they are of several labels, of more than 100 classes, or from before kdexp kept them."
        yield Section("confusion", "Confusion", f"These runs keep no confusion matrix: {reason}")
        return
    yield Section(
        "confusion",
        "Confusion",
        "On test at the best epoch by validation, summed over seeds; the shade is the fraction of the true class (its "
        "root, so that rare confusions are seen).",
        {"": [Figure(name, matrix) for name, matrix in matrices.items()]},
    )
