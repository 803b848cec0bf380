"""A robustness report in sentences."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdexp.report import glossary
from kdexp.report.robustness import Report, measure_of, metric_of
from kdexp.report.statistics import FEWEST_SEEDS, NOT_TESTED, TOO_FEW
from kdexp.results import Record
from kdexp.robustness.axes.corruptions import is_of_corruptions

# Up to so many classes each one's count is written out.
_COUNTED_CLASSES = 5
UNITS = "In %, differences of student and control in points; a row in another unit names it in brackets."
_UNCORRECTED = "the tests are not corrected for how many they are"


@dataclass(frozen=True)
class _Tested:
    """The difference of student and control under one condition (shares), and what its test says."""

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
        "noise_levels": "under noise",
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
    percent = f"{100 * report['settings']['confidence_level']:g} %"
    return (
        f"{_sentence('The student', tested)} Brackets: points of {metric_of(report).name}, and their {percent} "
        "interval by a paired bootstrap over the test samples of this one run; another seed may differ, and "
        f"{_UNCORRECTED}."
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
    """A line for each set of samples that the report is of: how many samples, of masks pixels, of each class it has."""
    pixels = "pixels " if metric_of(report).counted == "pixels" else ""
    for name, counts in report.get("sample_counts", {}).items():
        classes = counts["classes"]
        if len(classes) <= _COUNTED_CLASSES:
            found = (f"{pixels}of " if pixels else "") + ", ".join(f"{label}: {n}" for label, n in classes.items())
        else:
            few, many = min(classes.values()), max(classes.values())
            each = few if few == many else f"{few} to {many}"
            found = f"{each} {pixels}of each of {len(classes)} classes"
        yield f"samples, {name}: {counts['samples']} ({found})"


def attack_check(check: Record) -> str:
    """A check against masked gradients; its detail may begin with the measure, by its name in robustness.json."""
    measure, space, change = check["detail"].partition(" ")
    return f"{check['model']}: {check['check']}: {glossary.known(measure).name}{space}{change}"


def answer_over_seeds(who: str, rows: Sequence[Record], measure: str = "acc") -> str:
    """The same as `answer` of a configuration that was run with several seeds, by the paired t test over them.

    Args:
        who: the configuration.
        rows: from `accuracy_over_seeds`.
        measure: what they are of.
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
        f"{_sentence(who, tested)} Brackets: points of {glossary.known(measure).name}, and their 95 % interval by the "
        f"paired t test over {seeds} seed{'s' * (seeds > 1)}; {_UNCORRECTED}."
    )


def words(reports: Sequence[Report]) -> Iterator[str]:
    """What a table of means does not show: worst conditions, whether gradients are masked, and what was left out."""
    yield f"Evaluated on {reports[0]['samples']} test samples, {len(reports)} seed{'s' * (len(reports) > 1)}."
    yield from (f"{line[0].upper()}{line[1:]}." for line in sample_counts(reports[0]))
    for role in ("control", "student"):
        found: dict[tuple[str, float], list[float]] = {}
        for row in (row for report in reports for row in report["conditions"]):
            if row["model"] == role and is_of_corruptions(row["axis"]):
                found.setdefault((row["name"], row["level"]), []).append(row[measure_of(reports[0])])
        if found:
            (name, severity), values = min(found.items(), key=lambda one: statistics.fmean(one[1]))
            mean = 100 * statistics.fmean(values)
            yield f"Worst condition of the {role}: {name} {severity:g}, {mean:.1f} % {metric_of(reports[0]).name}."
    checks = [check for report in reports for check in report["attack_checks"]]
    failed = [check for check in checks if not check["holds"]]
    if checks and not failed:
        yield f"All {len(checks)} checks against masked gradients hold."
    for check in failed:
        yield f"Gradients may be masked: {attack_check(check)}."
    yield from (f"Note: {note}." for note in dict.fromkeys(note for report in reports for note in report["notes"]))
