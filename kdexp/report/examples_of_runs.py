"""Examples that runs keep in their folders: those of the chosen configuration beside those of its control."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Self, TypeVar

from kdexp.report.comparison import Comparison
from kdexp.report.run_group import RunGroup


class Example(Protocol):
    """A test sample and what networks predict of it."""

    def shows_the_same_as(self, other: Self) -> bool:
        """Whether all but the predictions is the same."""

    def with_control(self, control: Self) -> Self:
        """With what the student of the control predicts."""


E = TypeVar("E", bound=Example)


def of_first_seed(
    comparison: Comparison, read: Callable[[Path], list[E]], unread: list[str]
) -> tuple[int | None, list[E]]:
    """Those of the chosen configuration and its control, of the first seed that both have; and that seed.

    Without a control of the same samples they are of the chosen configuration, or of the control, alone.

    Args:
        comparison: of runs.
        read: gives the examples in a run's folder; none where it keeps none.
        unread: a line is added for each file that is damaged.
    """
    control = _by_seed(comparison.control, read, unread)
    winner = _by_seed(comparison.winner, read, unread)
    for seed, own in winner.items():
        alone = control.get(seed, [])
        pairs = list(zip(own, alone, strict=False))
        if len(alone) == len(own) and all(one.shows_the_same_as(other) for one, other in pairs):
            return seed, [one.with_control(other) for one, other in pairs]
    found: Mapping[int, list[E]] = winner or control
    return next(iter(found.items()), (None, []))


def _by_seed(group: RunGroup | None, read: Callable[[Path], list[E]], unread: list[str]) -> dict[int, list[E]]:
    found = {}
    for run in group.runs if group else ():
        try:
            examples = read(run.folder)
        except ValueError as error:
            unread.append(str(error))
            continue
        if examples:
            found[run.seed] = examples
    return found
