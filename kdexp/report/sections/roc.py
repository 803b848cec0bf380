"""How well do the networks' scores rank the samples?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.roc import roc, roc_of_classes


def sections(comparison: Comparison) -> Iterator[Section]:
    """The macro curves, and those of single classes as far as they are kept."""
    if not comparison.groups:
        return
    macro, classes = roc(comparison), roc_of_classes(comparison, comparison.class_names)
    if macro is None:
        yield Section(
            "roc",
            "ROC",
            "These runs keep no ROC curves: they are of a task without classes, or from before kdexp kept them.",
        )
        return
    figures = [Figure("Mean over classes (macro)", macro)]
    if classes:
        figures.append(Figure("The chosen student, class by class", classes))
    more = "" if classes else " Curves of single classes are kept up to 20 classes."
    counted = glossary.known(comparison.measure).counted
    lead = f"On {counted} of test at the best epoch by validation, one class against the rest, means over seeds.{more}"
    yield Section("roc", "ROC", lead, {"": figures})
