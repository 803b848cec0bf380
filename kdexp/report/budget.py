"""budget.json: what the students of a family take, untrained, and the budget that they are to fit."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from kdexp.atomic import atomic_path, read_json
from kdexp.config import typed
from kdexp.config.identity import fingerprint
from kdexp.config.require import Values

FILE = "budget.json"
SCHEMA_VERSION = 1
UNITS = {"bytes": "bytes", "latency_ms": "ms"}
"""What a budget may limit, and its unit."""


@dataclass(frozen=True)
class Taken:
    """What a network takes as an ONNX file, whatever its weights are.

    Attributes:
        name: what tells it from the others, as it is typed: ``cnn width=4``.
        bytes: of the file.
        latency_ms: of a call with one sample, the median.
        p95_ms: 95 % of the calls took no longer.
        calls: how many were timed.
        parameters: see `kdexp.models.complexity.parameters`.
        macs: of one sample.
        threads: that onnxruntime was given.
        processor: its name.
    """

    name: str
    bytes: int
    latency_ms: float
    p95_ms: float
    calls: int
    parameters: int
    macs: int
    threads: int
    processor: str

    def of(self, unit: str) -> float:
        """What it takes of one of `UNITS`."""
        return self.bytes if unit == "bytes" else self.latency_ms


@dataclass(frozen=True)
class Budget:
    """The content of budget.json.

    Attributes:
        limits: of `UNITS` the most that a student may take.
        robustness: the axis that is reported, too.
        family: keys of the students, in the order of the sweep; see `key_of`.
        students: what was measured, by key; those of an earlier family among them.
        teachers: what the teachers' networks take, by the name of their option.
        behind: of ``budget.halving=true``: how the students that fell behind did, by key.
    """

    limits: Mapping[str, float]
    robustness: str | None
    family: Sequence[str]
    students: Mapping[str, Taken]
    teachers: Mapping[str, Taken]
    behind: Mapping[str, str] = field(default_factory=dict)

    def over(self, student: Taken, share: float = 1.0) -> list[str]:
        """The limits that a student breaks, of a share of the budget."""
        return [unit for unit, most in self.limits.items() if student.of(unit) > share * most]

    def reasons(self, student: Taken) -> str:
        """Why it is left out: ``3.41 > 2 ms``; nothing where it is not."""
        return ", ".join(
            f"{amount(student.of(unit), unit).partition(' ')[0]} > {amount(self.limits[unit], unit)}"
            for unit in self.over(student)
        )


def amount(value: float, unit: str) -> str:
    """Of `UNITS`, for people: ``13,418 bytes``, ``0.0523 ms``."""
    return f"{value:,.0f} bytes" if unit == "bytes" else f"{value:.3g} ms"


def key_of(student: Values, threads: int) -> str:
    """What a student is known by: its settings, which say what it is told by the data set, and how it was measured."""
    return fingerprint([student, threads])


def read(folder: Path) -> Budget:
    """What stands in a sweep's folder.

    Raises:
        ValueError: there is no such file, or it is damaged; one line.
    """
    path = folder / FILE
    try:
        content = dict(read_json(path))
        for name in ("students", "teachers"):
            content[name] = {key: _taken(one) for key, one in content[name].items()}
        content = typed.complete(content, Budget, "")
        found = Budget(**{one.name: content[one.name] for one in fields(Budget)})
        if not (found.limits.keys() <= UNITS.keys() and {*found.family, *found.behind} <= found.students.keys()):
            raise ValueError("it names what it does not have")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must be what +sweep=budget has measured: {error}") from error
    return found


def _taken(content: object) -> Taken:
    complete = typed.complete(content, Taken, "")
    found = Taken(**{one.name: complete[one.name] for one in fields(Taken)})
    if not all(0 < found.of(unit) < math.inf for unit in UNITS):
        raise ValueError(f"{found.name} takes nothing that can be measured")
    return found


def write(folder: Path, budget: Budget) -> None:
    """Keep it in a sweep's folder."""
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(json.dumps({"schema_version": SCHEMA_VERSION} | asdict(budget), indent=2) + "\n")
