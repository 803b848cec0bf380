"""How are these numbers made?"""

from collections.abc import Iterator

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Section
from kdexp.report.statistics import FEWEST_SEEDS


def sections(comparison: Comparison) -> Iterator[Section]:
    """How the choice, the pairing and the test are done."""
    if comparison.groups:
        metric = glossary.known(comparison.measure)
        end = "lowest" if metric.lower_is_better else "highest"
        yield Section(
            "method",
            "How these numbers are made",
            "A run's best epoch is chosen on val, by the metric in trainer.monitor, and the best configuration by the "
            f"{end} mean {metric.averaged} on val among those with the most seeds; of equals that with the lowest mean "
            "NLL on val, and of these the first on the command line. 'Best' never means best on test.\n"
            "Configurations are compared with their control (the same student, data and recipe with alpha=1) seed by "
            "seed: the same initial weights and the same order of the data.\n"
            "The test is the paired t test over seeds, two-sided, and the interval of a gain the 95 % t interval of "
            "the same differences: it leaves out 0 exactly where "
            "p < 0.05. The interval of one configuration's own mean is a t interval, too. Fewer than "
            f"{FEWEST_SEEDS} seeds have neither interval nor p. Both say how another seed would turn out, not another "
            "test set. Where several configurations are tested, their p values are not corrected for it.",
        )
