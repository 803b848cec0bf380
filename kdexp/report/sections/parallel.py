"""From the swept values to the metrics, configuration by configuration."""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.parallel import parallel


def sections(comparison: Comparison) -> Iterator[Section]:
    """Parallel coordinates, where there is anything to tell apart."""
    if len(comparison.distilled) > 1:
        metric = glossary.known(comparison.measure)
        yield Section(
            "parallel",
            "Parallel coordinates",
            f"A line is a configuration, dark where val {metric.name} is low and yellow where it is high; the dotted "
            "line is the control, the thick one the choice. "
            f"{glossary.capitalized(metric.values)} are{metric.said_in}, the gain on test in "
            f"{metric.differs_in or 'the same'}. Hover over a point for the configuration.",
            {"": [Figure("From config values to metrics", parallel(comparison))]},
            wide=True,
        )
