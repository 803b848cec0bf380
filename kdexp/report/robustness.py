"""What a person sees of a robustness report, from robustness.json alone."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from kdexp.report import glossary
from kdexp.report.comparison import Setting
from kdexp.report.statistics import FEWEST_SEEDS, NOT_TESTED, TOO_FEW, Paired, paired, with_p
from kdexp.robustness.axes.corruptions import is_of_corruptions
from kdexp.terminal import screen

# Up to so many classes each one's count is written out.
_COUNTED_CLASSES = 5

Report = Mapping[str, Any]
"""The content of a robustness.json."""

UNITS = "In %, differences of student and control in points; a row in another unit names it in brackets."
_UNCORRECTED = "the tests are not corrected for how many they are"


def show(report: Report, folder: Path) -> None:
    """Print the answer, the measures of the networks side by side, failed checks, notes, and where everything is."""
    console = screen()
    console.print(f"\n{answer(report)}", highlight=False, soft_wrap=True)
    console.print(f"\nrobustness on {report['samples']} test samples of {report['dataset']}. {UNITS}", soft_wrap=True)
    for line in sample_counts(report):
        console.print(line, soft_wrap=True)
    console.print(_table(report))
    for line in glossary.explained(name for _, name, _ in flat(report["measures"])):
        console.print(line, highlight=False, soft_wrap=True)
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


@dataclass(frozen=True)
class _Tested:
    """The difference in accuracy of student and control under one condition (shares), and what its test says."""

    condition: str
    mean: float
    interval: Sequence[float] | None
    verdict: str

    def __str__(self) -> str:
        ends = "" if self.interval is None else f", {100 * self.interval[0]:+.2f} to {100 * self.interval[1]:+.2f}"
        return f"{_where(self.condition)} ({100 * self.mean:+.2f}{ends})"


def _where(condition: str) -> str:
    kind, _, name = condition.partition(" ")
    known = {
        "clean": "on clean test data",
        "noise_dose": "under noise",
        "attacks": "under attacks",
        "corruptions_lite": "under corruptions",
        "shift": f"under distribution shift ({name})",
    }
    return known.get(kind, f"under {condition}")


def answer(report: Report) -> str:
    """Whether the student of one run is better than its control, by how much and under what, in a sentence.

    A difference counts where its interval, of a paired bootstrap over the test samples, leaves out 0.
    """
    if not {"student", "control"} <= set(report["models"]):
        return (
            "This report does not have both student and control, so it cannot say what distillation adds: kdexp-eval "
            "robustness=... compares them, and trains the control where there is none."
        )
    if "accuracy_under" not in report:
        return "An older kdexp made this report, without what a test needs: kdexp-eval makes a new one."
    tested = []
    for condition, entry in report["accuracy_under"].items():
        gain = entry["difference"]
        if gain["value"] is not None:
            ends = None if gain["low"] is None else (gain["low"], gain["high"])
            tested.append(_Tested(condition, gain["value"], ends, _of_interval(ends)))
    percent = f"{100 * report['settings']['confidence']:g} %"
    return (
        f"{_sentence('The student', tested)} Brackets: points of accuracy, and their {percent} interval by a paired "
        f"bootstrap over the test samples of this one run; another seed may differ, and {_UNCORRECTED}."
    )


def _of_interval(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return NOT_TESTED
    return "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "not significant"


_SAID = {
    "better": "is better than the control ",
    "worse": "is worse than the control ",
    "not significant": "does not differ significantly from the control ",
    TOO_FEW: f"was not tested against the control, which takes {FEWEST_SEEDS} seeds, ",
    NOT_TESTED: "cannot be tested against the control ",
}


def _sentence(who: str, tested: Sequence[_Tested]) -> str:
    """Who is better, worse and not significantly different, under what, in this order."""
    parts = []
    for verdict, words in _SAID.items():
        found = [str(one) for one in tested if one.verdict == verdict]
        if found:
            parts.append(words + _joined(found))
    return f"{who} {'; it '.join(parts)}."


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


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
        measure = glossary.known(name)
        cells = [measure.number(entry.get(role)) for role in roles]
        if "difference" in entry:
            cells.append(_difference(measure, entry["difference"]))
        table.add_row(glossary.label(axis, name), *cells)
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
                "accuracy_under": list(accuracy_over_seeds([reports[run.folder] for run in setting.runs])),
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


def accuracy_over_seeds(reports: Sequence[Report]) -> Iterator[dict[str, Any]]:
    """The accuracy under each condition: the difference of student and control, paired by seed, and its t test."""
    found: dict[str, list[float]] = {}
    for report in reports:
        for condition, entry in report.get("accuracy_under", {}).items():
            value = entry.get("difference", {}).get("value")
            if value is not None:
                found.setdefault(condition, []).append(value)
    for condition, values in found.items():
        gain = paired(values)
        assert gain is not None
        yield {"condition": condition, "difference": asdict(gain) | {"verdict": gain.verdict}}


def answer_over_seeds(who: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The same as `answer` of a configuration that was run with several seeds, by the paired t test over them.

    Args:
        who: the configuration.
        rows: from `accuracy_over_seeds`.
    """
    tested = [
        _Tested(row["condition"], gain["mean"], gain["interval"], gain["verdict"])
        for row in rows
        for gain in [row["difference"]]
    ]
    if not tested:
        return ""
    seeds = max(len(row["difference"]["differences"]) for row in rows)
    return (
        f"{_sentence(who, tested)} Brackets: points of accuracy, and their 95 % interval by the paired t test over "
        f"{seeds} seed{'s' * (seeds > 1)}; {_UNCORRECTED}."
    )


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
            yield f"Worst cell of the {role}: {name} {severity:g}, {100 * statistics.fmean(accuracy):.1f} % accuracy."
    checks = [check for report in reports for check in report["attack_checks"]]
    failed = [check for check in checks if not check["holds"]]
    if checks and not failed:
        yield f"All {len(checks)} checks against masked gradients hold."
    for check in failed:
        yield f"Gradients may be masked: {check['model']}: {check['check']}: {check['detail']}."
    yield from (f"Note: {note}." for note in dict.fromkeys(note for report in reports for note in report["notes"]))


def _verdict(gain: Paired, measure: str) -> str:
    """`Paired.verdict`, which takes more for better, in the sense of the measure."""
    if glossary.known(measure).lower_is_better:
        return {"better": "worse", "worse": "better"}.get(gain.verdict, gain.verdict)
    return gain.verdict


def show_sweep(together: Mapping[str, Any], folder: Path) -> None:
    """Print each setting of a sweep against its control: the answer, means over seeds, differences paired by seed."""
    console = screen()
    names: dict[str, None] = {}
    for setting in together["settings"]:
        if answered := answer_over_seeds(setting["label"], setting.get("accuracy_under", [])):
            console.print(f"\n{answered}", highlight=False, soft_wrap=True)
    console.print(f"\nmeans over seeds. {UNITS}", soft_wrap=True)
    for setting in together["settings"]:
        table = Table(box=SIMPLE, title=f"{setting['label']}  (seeds {', '.join(map(str, setting['seeds']))})")
        table.add_column("", no_wrap=True)
        for role in ("teacher", "control", "student", "student - control, 95 % t interval over seeds", ""):
            table.add_column(role, justify="right")
        for row in setting["measures"]:
            measure = glossary.known(row["measure"])
            means = [measure.number(row["mean"].get(role)) for role in ("teacher", "control", "student")]
            gain = row["difference"]
            said = [_difference(measure, _ends(gain)), with_p(gain["verdict"], gain["p"])] if gain else ["", ""]
            table.add_row(glossary.label(row["axis"], row["measure"]), *means, *said)
            names[row["measure"]] = None
        console.print(table)
    for line in glossary.explained(names):
        console.print(line, highlight=False, soft_wrap=True)
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


def _difference(measure: glossary.Measure, entry: Mapping[str, float | None]) -> str:
    """``+1.23 [-0.10, +2.56]``."""
    value, low, high = (measure.number(entry[end], sign=True) for end in ("value", "low", "high"))
    return value if entry["low"] is None else f"{value} [{low}, {high}]"
