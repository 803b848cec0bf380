"""Teacher, control, student: whose error is how large?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.errors import errors
from kdexp.report.statistics import FEWEST_SEEDS


def sections(comparison: Comparison) -> Iterator[Section]:
    """The bars."""
    if comparison.groups:
        shown, better, others = "error", "lower", "and Wilson's over test samples where there is one run; two seeds"
        if comparison.measure != "acc":
            metric = glossary.known(comparison.measure)
            shown, better, others = metric.name, "lower" if metric.lower_is_better else "higher", "fewer"
        yield Section(
            "errors",
            "Teacher, control, student",
            f"Test {shown}: {better} is better. The control is the baseline: the same student trained without a "
            f"teacher. Lines are 95 % intervals: t intervals over seeds where there are at least {FEWEST_SEEDS}, "
            f"{others} have none.",
            {"": [Figure(f"Test {shown}, %", errors(comparison))]},
            wide=True,
        )
