"""Which classes are mistaken for which?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.confusion import confusions


def sections(comparison: Comparison) -> Iterator[Section]:
    """The confusion matrices, as far as they are kept."""
    if not comparison.groups:
        return
    matrices = confusions(comparison, comparison.class_names)
    if not matrices:
        reason = "several labels, of a task without classes, of more than 100 classes, or from before kdexp kept them."
        yield Section("confusion", "Confusion", f"These runs keep no confusion matrix: they are of {reason}")
        return
    yield Section(
        "confusion",
        "Confusion",
        f"On test at the best epoch by validation, {glossary.known(comparison.measure).counted} summed over seeds; the "
        "shade is the fraction of the true class (its root, so that rare confusions are seen).",
        {"": [Figure(name, matrix) for name, matrix in matrices.items()]},
    )
