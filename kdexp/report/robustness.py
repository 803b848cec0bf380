"""What a person sees of a robustness report, from robustness.json alone."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

# Measures for which less is better have no sign of their own in a table: the reader is told.
_LESS_IS_BETTER = ("mce", "relative_mce", "error", "ece", "ace", "nll", "brier", "fpr95", "acc_lost", "largest_gap")


def show(report: Mapping[str, Any], folder: Path) -> None:
    """Print the measures of the networks side by side, the checks that failed, the notes, and where everything is."""
    # Into a file or a pipe a table is written as wide as it is.
    screen = Console() if sys.stdout.isatty() else Console(width=160)
    screen.print(
        f"\nrobustness on {report['samples']} test samples of {report['dataset']}; intervals over test samples"
    )
    screen.print(_table(report))
    failed = [check for check in report["attack_checks"] if not check["holds"]]
    for check in failed:
        screen.print(
            f"warning: gradients may be masked: {check['model']}: {check['check']}: {check['detail']}", soft_wrap=True
        )
    if report["attack_checks"] and not failed:
        screen.print(f"attacks: all {len(report['attack_checks'])} checks against masked gradients hold")
    for note in report["notes"]:
        screen.print(f"note: {note}", soft_wrap=True)
    screen.print(f"report        {folder / 'robustness.json'}", soft_wrap=True)
    screen.print(f"cells         {folder / 'robustness.csv'}", soft_wrap=True)
    screen.print(f"figures       {folder / 'figures'}", soft_wrap=True)


def _table(report: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    roles = list(report["models"])
    for role in roles:
        table.add_column(role, justify="right")
    if {"student", "control"} <= set(roles):
        percent = f"{100 * report['settings']['confidence']:g} %"
        table.add_column(f"student - control, {percent} interval", justify="right")
    for axis, name, entry in flat(report["measures"]):
        cells = [number(entry.get(role)) for role in roles]
        if "difference" in entry:
            cells.append(difference(entry["difference"]))
        less = name.rpartition(" ")[2].startswith(_LESS_IS_BETTER)
        table.add_row(f"{axis}  {name}{'  (less is better)' if less else ''}", *cells)
    return table


def flat(measures: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Axis, measure (``fog area`` where a measure belongs to one perturbation) and its values by role."""
    for axis, parts in measures.items():
        for name, part in parts.items():
            if any(isinstance(value, Mapping) and key != "difference" for key, value in part.items()):
                yield from ((axis, f"{name} {measure}", entry) for measure, entry in part.items())
            else:
                yield axis, name, part


def number(value: float | None) -> str:
    """Four decimals, or a dash for what is not defined."""
    return "-" if value is None else f"{value:.4f}"


def difference(entry: Mapping[str, float | None]) -> str:
    """``+0.0123 [-0.0010, +0.0256]``."""
    if entry["value"] is None:
        return "-"
    if entry["low"] is None:
        return f"{entry['value']:+.4f}"
    return f"{entry['value']:+.4f} [{entry['low']:+.4f}, {entry['high']:+.4f}]"
