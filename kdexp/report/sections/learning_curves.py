"""How did the loss, and what the runs are compared by, go over the epochs?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.learning_curves import learning_curves


def sections(comparison: Comparison) -> Iterator[Section]:
    """The curves of each column of metrics.csv that is there."""
    if not comparison.groups:
        return
    of_measure = {f"val/{comparison.measure}": f"{glossary.known(comparison.measure).title} on val"}
    titles = of_measure | {"val/loss": "Loss on val", "train/loss": "Loss on train"}
    plots = {title: learning_curves(comparison, name) for name, title in titles.items()}
    figures = [Figure(title, plot) for title, plot in plots.items() if plot]
    if not figures:
        yield Section("learning", "Learning curves", "No metrics.csv was found beside the results of these runs.")
        return
    yield Section(
        "learning",
        "Learning curves",
        "Means over seeds; the shade is the seeds' range. Blue is the chosen configuration, dark gray its control, "
        "light gray the next best on val. Losses of different alpha or temperature are not comparable.",
        {"": figures},
    )
