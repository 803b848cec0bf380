"""Which student of a family to take: the best on val of those that fit a budget, or half of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdexp.naming import counted
from kdexp.report import glossary
from kdexp.report.budget import UNITS, Budget, Taken, amount, key_of, read
from kdexp.report.comparison import Comparison
from kdexp.report.robustness import Row, by_seed, mean_over_seeds
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import Estimate
from kdexp.report.summary_text import spread
from kdexp.robustness.axes.corruptions import is_of_corruptions


@dataclass(frozen=True, eq=False)
class Student:
    """One of the family.

    Attributes:
        taken: what its network takes.
        left_out: the limits that it breaks; empty where it fits.
        behind: how it fell behind others in a halving; empty where it did not.
        distilled: the best of its distilled configurations by val; None of one without a completed run.
        control: trained alone, likewise.
    """

    taken: Taken
    left_out: str
    behind: str
    distilled: RunGroup | None
    control: RunGroup | None


class Choice:
    """What a sweep over a family of students says.

    Args:
        budget: of the sweep.
        comparison: of its runs.

    Attributes:
        budget: the same.
        comparison: the same.
        students: the family, in the order of the sweep.
    """

    def __init__(self, budget: Budget, comparison: Comparison) -> None:
        self.budget, self.comparison = budget, comparison
        keys = {
            group: key_of(group.runs[0].results["config"].get("student"), budget.students[budget.family[0]].threads)
            for group in comparison.groups
        }
        self.students = [
            Student(
                budget.students[key],
                _limits(budget, budget.over(budget.students[key])),
                budget.behind.get(key, ""),
                next((group for group in comparison.ranked if keys[group] == key), None),
                next((group for group in comparison.controls if keys[group] == key), None),
            )
            for key in budget.family
        ]

    @cached_property
    def best(self) -> Student | None:
        """The student to take; None where none is trained."""
        return next(iter(self._within(1.0)), None)

    @cached_property
    def best_of_half(self) -> Student | None:
        """The student to take with half of the budget."""
        return next(iter(self._within(0.5)), None)

    def _within(self, share: float) -> list[Student]:
        """The students within a share of the budget, the best on val first: see `kdexp.report.comparison`."""
        trained = [one for one in self.students if one.distilled and not one.behind]
        able = [one for one in trained if not self.budget.over(one.taken, share)]
        return sorted(able, key=self._rank)

    def _rank(self, student: Student) -> int:
        assert student.distilled is not None
        return self.comparison.ranked.index(student.distilled)

    def front(self, unit: str) -> list[Student]:
        """The Pareto front by val: the students that none beats which takes as little or less, the smallest first.

        Args:
            unit: of what they take, one of `kdexp.report.budget.UNITS`.
        """
        found: list[Student] = []
        for student in sorted(self._within(1.0), key=lambda one: (one.taken.of(unit), self._rank(one))):
            if not found or self._rank(student) < self._rank(found[-1]):
                found.append(student)
        return found

    def reached(self, student: Student, role: str, axis: str | None = None) -> Estimate | None:
        """The measure on test, or its mean under the conditions of an axis of the robustness report; None: unknown.

        Args:
            student: one of the family.
            role: ``student``, distilled, or ``control``.
            axis: None: clean.
        """
        if axis is None:
            group = student.distilled if role == "student" else student.control
            return group.estimate(self.comparison.measure) if group else None

        def is_of(row: Row) -> bool:
            return row["axis"] == axis or (axis == "corruptions" and is_of_corruptions(row["axis"]))

        values = by_seed(self.comparison.reports_of(student.distilled), role, is_of)
        return mean_over_seeds(values) if values else None

    @property
    def limits(self) -> str:
        """The budget, in words."""
        return _limits(self.budget, self.budget.limits)

    @property
    def how(self) -> str:
        """How it was measured."""
        one = self.students[0].taken
        return (
            "Bytes of the ONNX file and median milliseconds of a call with one sample by onnxruntime, "
            f"{counted(one.threads, 'thread')} of {one.processor}, measured once, of untrained networks."
        )

    def sentence(self) -> str:
        """Which student to take, and which with half of the budget; empty of a quick run, which says nothing."""
        if self.comparison.is_quick:
            return ""
        best, half = self.best, self.best_of_half
        if best is None:
            return f"No student within {self.limits} has a completed distilled run: there is none to take yet."
        said = f"Within {self.limits} take {self._described(best)}, {self._among()}"
        if half is None:
            return f"{said}; none of the family fits half of the budget."
        if half is best:
            return f"{said}; it fits half of the budget, too."
        return f"{said}; with half of the budget take {self._described(half)}."

    def _among(self) -> str:
        trained = self._within(1.0)
        able = [student for student in trained if student.distilled in self.comparison.candidates]
        behind = sum(bool(student.behind) for student in self.students)
        if len(trained) == 1 and not behind:
            return "the only student that fits"
        rest = "" if len(able) == len(trained) else f" of {len(trained)} (the rest: fewer seeds)"
        halved = f", after {counted(behind, 'other')} fell behind" if behind else ""
        return f"chosen on val among {counted(len(able), 'student') if not rest else f'{len(able)}{rest}'}{halved}"

    def _described(self, student: Student) -> str:
        takes = ", ".join(amount(student.taken.of(unit), unit) for unit in UNITS)
        alone = f", alone {spread(student.control)}" if student.control else ""
        assert student.distilled is not None
        name = glossary.known(self.comparison.measure).name
        return f"{student.taken.name} ({takes}; test {name} distilled {spread(student.distilled)}{alone})"


def _limits(budget: Budget, units: Iterable[str]) -> str:
    return " and ".join(amount(budget.limits[unit], unit) for unit in units)


def choice_of(comparison: Comparison) -> Choice | None:
    """What the sweep that all runs are of says; None where that is none over a family with a budget."""
    folders = {run.folder.parent for run in comparison.completed}
    found = _budgets(folders)
    return Choice(found[folders.pop()], comparison) if len(found) == len(folders) == 1 else None


def _budgets(folders: Iterable[Path]) -> Mapping[Path, Budget]:
    found = {}
    for folder in folders:
        try:
            found[folder] = read(folder)
        except ValueError:  # most sweeps have none; one that is damaged is no reason to show nothing
            continue
    return {folder: budget for folder, budget in found.items() if budget.family}
