"""Teacher, control, student: whose error is how large?"""

from collections.abc import Iterator

from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.errors import errors
from kdexp.report.statistics import FEWEST_SEEDS


def sections(comparison: Comparison) -> Iterator[Section]:
    """The bars."""
    if comparison.groups:
        yield Section(
            "errors",
            "Teacher, control, student",
            "Test error: lower is better. The control is the baseline: the same student trained without a teacher. "
            f"Lines are 95 % intervals: t intervals over seeds where there are at least {FEWEST_SEEDS}, and Wilson's "
            "over test samples where there is one run; two seeds have none.",
            {"": [Figure("Test error, %", errors(comparison))]},
            wide=True,
        )
