"""The doctor's table on the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from kdexp.doctor.finding import Finding
from kdexp.terminal import screen

_COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def show(findings: Sequence[Finding], *, unfinished: bool = False) -> None:
    """Print the table and the number of errors, warnings and notes in it.

    Args:
        findings: the rows.
        unfinished: a wrong value ended the checks early; this is said.
    """
    table = Table(box=SIMPLE)
    for name in ("check", "found", "verdict"):
        table.add_column(name, no_wrap=name != "found")
    for finding in findings:
        text = f"{finding.found}\n-> {finding.advice}" if finding.advice else finding.found
        table.add_row(finding.check, text, Text(finding.verdict, _COLORS[finding.verdict]))
    console = screen()
    console.print(table)
    counts = {name: sum(finding.verdict == name for finding in findings) for name in ("error", "warning", "note")}
    total = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    console.print(f"{total}; not all checks were made" if unfinished else total)
