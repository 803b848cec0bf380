"""What does a good network cost: parameters, multiply-accumulates, training time?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.costs import costs

_FIGURES = {"parameters": "Parameters", "macs": "Multiply-accumulates", "seconds": "Training time"}


def sections(comparison: Comparison) -> Iterator[Section]:
    """What the runs are compared by, over each cost that is known."""
    plots = {title: costs(comparison, name) for name, title in _FIGURES.items()}
    figures = [Figure(title, plot) for title, plot in plots.items() if plot]
    if figures:
        yield Section(
            "cost",
            f"{glossary.known(comparison.measure).title} against cost",
            "What a network costs to keep, to run on one sample of dataset.input_shape, and what the student cost to "
            "train on the machine of its run. Lines are 95 % intervals, as in the first figure.",
            {"": figures},
        )
