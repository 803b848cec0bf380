"""Which runs are not completed, and why?"""

from collections.abc import Iterator

from kdexp.report.comparison import Comparison
from kdexp.report.elements import Failure, Section
from kdexp.report.runs import Run

_WITHOUT_ERROR = {"running": "it is still at work", "waiting": "it has not begun"}


def sections(comparison: Comparison) -> Iterator[Section]:
    """The runs, each with the end of its log."""
    if comparison.failed:
        failures = list(map(_failure, comparison.failed))
        yield Section("failed", "Not completed", "These runs count in no figure and no mean.", failures=failures)


def _failure(run: Run) -> Failure:
    error = run.error or _WITHOUT_ERROR.get(run.status, "no reason is known")
    return Failure(run.folder.name, run.status, error, run.log_tail, run.command)
