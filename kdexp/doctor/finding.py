"""One row of the doctor's table, and how numbers are written in it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        check: what was checked.
        found: what there is.
        verdict: ok; note: worth knowing; warning: the run works but likely not as meant; error: it cannot work.
        advice: what to do; with every warning and error.
    """

    check: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""


def format_count(count: float) -> str:
    """A count in thousands, millions or billions: 4810 is 4.81k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def format_bytes(count: float) -> str:
    """A number of bytes in kB, MB or GB (powers of 1000)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def format_duration(seconds: float) -> str:
    """A duration in the largest unit of which there are two or more."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
