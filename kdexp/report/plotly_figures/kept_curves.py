"""The ROC curves and confusion matrices that results.json holds of teacher, control and chosen student."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdexp.report.colors import CONTROL, TEACHER, WINNER
from kdexp.report.comparison import Comparison
from kdexp.results import Record


@dataclass(frozen=True)
class NetworkCurves:
    """What is kept of one network.

    Attributes:
        name: of the network.
        color: of its lines.
        is_teacher: else it is a student.
        runs: ``curves`` of the results.json of each seed that kept any, at least one: ``fpr``, ``roc`` and ``auc`` by
            class, ``confusion`` where it is kept.
    """

    name: str
    color: str
    is_teacher: bool
    runs: Sequence[Record]


def kept_curves(comparison: Comparison) -> list[NetworkCurves]:
    """The networks of teacher, control and chosen student that have any curves."""
    return [network for network in _networks(comparison) if network.runs]


def _networks(comparison: Comparison) -> Iterator[NetworkCurves]:
    for name, teacher in itertools.islice(comparison.teachers.items(), 1):
        yield NetworkCurves(f"teacher {name}", TEACHER, True, [teacher["curves"]] if "curves" in teacher else [])
    for group, color in ((comparison.control, CONTROL), (comparison.winner, WINNER)):
        if group:
            runs = [run.results["curves"] for run in group.runs if "curves" in run.results]
            yield NetworkCurves(group.label, color, False, runs)
