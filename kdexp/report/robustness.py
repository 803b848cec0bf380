"""What a person sees of a robustness report, from robustness.json alone."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from kdexp.report.comparison import Setting
from kdexp.report.statistics import Paired, paired, with_p
from kdexp.terminal import screen

# Measures for which less is better have no sign of their own in a table: the reader is told.
_LESS_IS_BETTER = ("mce", "relative_mce", "error", "ece", "ace", "nll", "brier", "fpr95", "acc_lost", "largest_gap")


# Up to so many classes each one's count is written out.
_COUNTED_CLASSES = 5

Report = Mapping[str, Any]
"""The content of a robustness.json."""


def show(report: Report, folder: Path) -> None:
    """Print the measures of the networks side by side, the checks that failed, the notes, and where everything is."""
    console = screen()
    console.print(
        f"\nrobustness on {report['samples']} test samples of {report['dataset']}; intervals over test samples"
    )
    for line in sample_counts(report):
        console.print(line, soft_wrap=True)
    console.print(_table(report))
    failed = [check for check in report["attack_checks"] if not check["holds"]]
    for check in failed:
        console.print(
            f"warning: gradients may be masked: {check['model']}: {check['check']}: {check['detail']}", soft_wrap=True
        )
    if report["attack_checks"] and not failed:
        console.print(f"attacks: all {len(report['attack_checks'])} checks against masked gradients hold")
    for note in report["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"report        {folder / 'robustness.json'}", soft_wrap=True)
    console.print(f"cells         {folder / 'robustness.csv'}", soft_wrap=True)
    console.print(f"figures       {folder / 'figures'}", soft_wrap=True)


def sample_counts(report: Report) -> Iterator[str]:
    """A line for each set of samples that the report is of: how many samples of each class it has."""
    for name, counts in report.get("sample_counts", {}).items():
        classes = counts["classes"]
        if len(classes) <= _COUNTED_CLASSES:
            found = ", ".join(f"{label}: {count}" for label, count in classes.items())
        else:
            few, many = min(classes.values()), max(classes.values())
            each = few if few == many else f"{few} to {many}"
            found = f"{each} of each of {len(classes)} classes"
        yield f"samples, {name}: {counts['samples']} ({found})"


def named(axis: str, measure: str) -> str:
    """A measure as a table has it, with a word where less is better."""
    less = measure.rpartition(" ")[2].startswith(_LESS_IS_BETTER)
    return f"{axis}  {measure}{'  (less is better)' if less else ''}"


def _table(report: Report) -> Table:
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
        table.add_row(named(axis, name), *cells)
    return table


def over_seeds(settings: Sequence[Setting], reports: Mapping[Path, Report]) -> dict[str, Any]:
    """What several runs' reports say together: every measure over the seeds of each setting.

    Args:
        settings: distilled settings, see `kdexp.report.comparison.Comparison`.
        reports: of their runs, by run folder.

    Returns:
        The content of a sweep's robustness.json: for each setting, axis and measure the values of the networks by seed,
        their means, and the difference of student and control paired by seed.
    """
    return {
        "settings": [
            {
                "label": setting.label,
                "seeds": [run.seed for run in setting.runs],
                "runs": [str(run.folder) for run in setting.runs],
                "measures": list(measures_over_seeds([reports[run.folder] for run in setting.runs])),
            }
            for setting in settings
        ]
    }


def measures_over_seeds(reports: Sequence[Report]) -> Iterator[dict[str, Any]]:
    """Each measure of one setting's reports: values by role, their means, the difference paired by seed."""
    entries = [{(axis, name): entry for axis, name, entry in flat(report["measures"])} for report in reports]
    for axis, name in entries[0]:
        found = [one[axis, name] for one in entries if (axis, name) in one]
        values = {
            role: known
            for role in ("teacher", "control", "student")
            if (known := [one[role] for one in found if one.get(role) is not None])
        }
        differences = [one["difference"]["value"] for one in found if "difference" in one]
        gain = paired([value for value in differences if value is not None])
        yield {
            "axis": axis,
            "measure": name,
            "values": values,
            "mean": {role: statistics.fmean(known) for role, known in values.items()},
            "difference": asdict(gain) | {"verdict": _verdict(gain, name)} if gain is not None else None,
        }


def is_of_corruptions(axis: str) -> bool:
    """Whether an axis is of common corruptions: kdexp's own, or a published set of them."""
    return axis == "corruptions_lite" or axis.endswith(("_c", "_c_held_out"))


def words(reports: Sequence[Report]) -> Iterator[str]:
    """What is not seen in a table of means: worst cells, whether the attacks can be believed, and what was left out."""
    yield f"Examined on {reports[0]['samples']} test samples, {len(reports)} seed{'s' * (len(reports) > 1)}."
    yield from (f"{line[0].upper()}{line[1:]}." for line in sample_counts(reports[0]))
    for role in ("control", "student"):
        cells: dict[tuple[str, float], list[float]] = {}
        for row in (row for report in reports for row in report["cells"]):
            if row["model"] == role and is_of_corruptions(row["axis"]):
                cells.setdefault((row["name"], row["dose"]), []).append(row["acc"])
        if cells:
            (name, severity), accuracy = min(cells.items(), key=lambda cell: statistics.fmean(cell[1]))
            yield f"Worst cell of the {role}: {name} {severity:g}, {100 * statistics.fmean(accuracy):.1f} % right."
    checks = [check for report in reports for check in report["attack_checks"]]
    failed = [check for check in checks if not check["holds"]]
    if checks and not failed:
        yield f"All {len(checks)} checks against masked gradients hold."
    for check in failed:
        yield f"Gradients may be masked: {check['model']}: {check['check']}: {check['detail']}."
    yield from (f"Note: {note}." for note in dict.fromkeys(note for report in reports for note in report["notes"]))


def _verdict(gain: Paired, measure: str) -> str:
    """`Paired.verdict`, which takes more for better, in the sense of the measure."""
    if measure.rpartition(" ")[2].startswith(_LESS_IS_BETTER):
        return {"better": "worse", "worse": "better"}.get(gain.verdict, gain.verdict)
    return gain.verdict


def show_sweep(together: Mapping[str, Any], folder: Path) -> None:
    """Print each setting of a sweep against its control: means over seeds, and the difference paired by seed."""
    console = screen()
    for setting in together["settings"]:
        table = Table(box=SIMPLE, title=f"{setting['label']}  (seeds {', '.join(map(str, setting['seeds']))})")
        table.add_column("", no_wrap=True)
        for role in ("teacher", "control", "student", "student - control, 95 % t interval over seeds", ""):
            table.add_column(role, justify="right")
        for row in setting["measures"]:
            means = [number(row["mean"].get(role)) for role in ("teacher", "control", "student")]
            gain = row["difference"]
            said = [difference(_ends(gain)), with_p(gain["verdict"], gain["p"])] if gain is not None else ["", ""]
            table.add_row(named(row["axis"], row["measure"]), *means, *said)
        console.print(table)
    console.print(f"report        {folder / 'robustness.json'}", soft_wrap=True)


def _ends(gain: Mapping[str, Any]) -> dict[str, float | None]:
    low, high = gain["interval"] or (None, None)
    return {"value": gain["mean"], "low": low, "high": high}


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
