"""The students of a budget as a table."""

from collections.abc import Mapping, Sequence

from kdexp.report import glossary
from kdexp.report.budget import UNITS
from kdexp.report.budget_choice import Choice, Student
from kdexp.report.elements import Cell, Column, metric, number


def columns(choice: Choice) -> list[Column[Student]]:
    """What is shown of each student.

    Args:
        choice: whose students they are.
    """
    measure, axis = choice.comparison.measure, choice.budget.robustness
    name = glossary.known(measure).column
    fronts = {unit: choice.front(unit) for unit in UNITS}
    known: list[Column[Student]] = [
        Column("student", lambda one: _marked(choice, one), "word"),
        Column("bytes", lambda one: Cell(f"{one.taken.bytes:,}", one.taken.bytes)),
        Column("ms", lambda one: Cell(f"{one.taken.latency_ms:.3g}", one.taken.latency_ms)),
        Column("parameters", lambda one: Cell(f"{one.taken.parameters:,}", one.taken.parameters)),
        Column("MACs", lambda one: Cell(f"{one.taken.macs:,}", one.taken.macs)),
        Column(f"val {name}", lambda one: metric(one.distilled, measure, "val")),
        Column(f"{name}, alone", lambda one: metric(one.control, measure)),
        Column(f"{name}, distilled", lambda one: metric(one.distilled, measure)),
        Column("gain", lambda one: _gain(one, measure)),
    ]
    if axis:
        known += [
            Column(f"{axis}, alone", lambda one: _under(choice, one, "control")),
            Column(f"{axis}, distilled", lambda one: _under(choice, one, "student")),
        ]
    return [*known, Column("front", lambda one: _placed(one, fronts), "word")]


def _marked(choice: Choice, student: Student) -> str:
    if choice.comparison.is_quick:
        return student.taken.name
    words = {"take": choice.best, "half": choice.best_of_half}
    marks = [word for word, one in words.items() if one is student]
    return f"{student.taken.name} ({', '.join(marks)})" if marks else student.taken.name


def _under(choice: Choice, student: Student, role: str) -> Cell:
    found = choice.reached(student, role, choice.budget.robustness)
    return number(found.value if found else None, choice.comparison.measure)


def _placed(student: Student, fronts: Mapping[str, Sequence[Student]]) -> str:
    if student.left_out:
        return f"over {student.left_out}"
    if student.behind:
        return student.behind
    return ", ".join(word for word, unit in (("bytes", "bytes"), ("latency", "latency_ms")) if student in fronts[unit])


def _gain(student: Student, measure: str) -> Cell:
    gain = student.distilled.gain if student.distilled else None
    if gain is None:
        return Cell("")
    return Cell(glossary.known(measure).spread(gain.mean, gain.std, sign=True), gain.mean)
