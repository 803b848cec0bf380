"""A robustness report as tables in the terminal."""

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from kdexp import results
from kdexp.report import glossary
from kdexp.report.robustness import Report, flat
from kdexp.report.robustness_text import UNITS, answer, answer_over_seeds, attack_check, sample_counts
from kdexp.report.statistics import with_p
from kdexp.results import Record
from kdexp.robustness.settings import TRAINED
from kdexp.terminal import screen


def show(report: Report, folder: Path) -> None:
    """Print the answer, the metrics of the networks side by side, failed checks, notes, and where everything is."""
    console = screen()
    console.print(f"\n{answer(report)}", highlight=False, soft_wrap=True)
    console.print(f"\nrobustness on {report['samples']} test samples of {report['dataset']}. {UNITS}", soft_wrap=True)
    for line in sample_counts(report):
        console.print(line, soft_wrap=True)
    console.print(_table(report))
    for line in glossary.explained(name for _, name, _ in flat(report["metrics"])):
        console.print(line, highlight=False, soft_wrap=True)
    failed = [check for check in report["attack_checks"] if not check["holds"]]
    for check in failed:
        console.print(f"warning: gradients may be masked: {attack_check(check)}", soft_wrap=True)
    if report["attack_checks"] and not failed:
        console.print(f"attacks: all {len(report['attack_checks'])} checks against masked gradients hold")
    for note in report["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"report        {folder / results.ROBUSTNESS}", soft_wrap=True)
    console.print(f"conditions    {folder / 'robustness.csv'}", soft_wrap=True)
    console.print(f"figures       {folder / 'figures'}", soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    roles = list(report["models"])
    for role in roles:
        table.add_column(role, justify="right")
    percent = f"{100 * report['settings']['confidence_level']:g} %"
    compared = {"difference": ("student", "control"), "export_difference": ("exported", "student")}
    differences = [name for name, pair in compared.items() if set(pair) <= set(roles)]
    for name in differences:
        table.add_column(f"{' - '.join(compared[name])}, {percent} interval", justify="right")
    for axis, name, entry in flat(report["metrics"]):
        metric = glossary.known(name)
        cells = [metric.number(entry.get(role)) for role in roles]
        cells += [difference(metric, entry[name]) if name in entry else "" for name in differences]
        table.add_row(glossary.label(axis, name), *cells)
    return table


def show_sweep(together: Record, folder: Path) -> None:
    """Print each configuration of a sweep against its control: the answer, means over seeds, paired differences."""
    console = screen()
    names: dict[str, None] = {}
    for group in together["settings"]:
        if answered := answer_over_seeds(group["label"], group.get("accuracy_under", []), group.get("measure", "acc")):
            console.print(f"\n{answered}", highlight=False, soft_wrap=True)
    console.print(f"\nmeans over seeds. {UNITS}", soft_wrap=True)
    for group in together["settings"]:
        table = Table(box=SIMPLE, title=f"{group['label']}  (seeds {', '.join(map(str, group['seeds']))})")
        table.add_column("", no_wrap=True)
        for role in (*TRAINED, "student - control, 95 % t interval over seeds", ""):
            table.add_column(role, justify="right")
        for row in group["metrics"]:
            metric = glossary.known(row["metric"])
            means = [metric.number(row["mean"].get(role)) for role in TRAINED]
            gain = row["difference"]
            said = [difference(metric, _ends(gain)), with_p(gain["verdict"], gain["p"])] if gain else ["", ""]
            table.add_row(glossary.label(row["axis"], row["metric"]), *means, *said)
            names[row["metric"]] = None
        console.print(table)
    for line in glossary.explained(names):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"report        {folder / results.ROBUSTNESS}", soft_wrap=True)


def _ends(gain: Record) -> dict[str, float | None]:
    low, high = gain["interval"] or (None, None)
    return {"value": gain["mean"], "low": low, "high": high}


def difference(metric: glossary.Metric, entry: Mapping[str, float | None]) -> str:
    """A difference and its interval as a table shows them: ``+1.23 [-0.10, +2.56]``."""
    value, low, high = (metric.number(entry[end], sign=True) for end in ("value", "low", "high"))
    return value if entry["low"] is None else f"{value} [{low}, {high}]"
