"""What a student kept and what it lost against its control, metric by metric: more than one score decides.

arXiv 2604.25110 calls for saying what distillation loses beside the score, arXiv 2510.12615 for controls and tests; the
form is kdexp's own. All differences are of student and control with the same seed.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from kdexp.naming import counted
from kdexp.report import decisions
from kdexp.report.comparison import Comparison, is_placebo
from kdexp.report.glossary import Metric, known
from kdexp.report.robustness import flat
from kdexp.report.run_group import RunGroup
from kdexp.report.runs import Run
from kdexp.report.statistics import CONFIDENCE, Paired, holm, is_equivalent, paired
from kdexp.results import Record
from kdexp.robustness.axes.corruptions import is_of_corruptions
from kdexp.robustness.settings import CONTROL, STUDENT

BETTER, WORSE, KEPT, NOT_SIGNIFICANT, NOT_TESTED = "better", "worse", "kept", "not significant", "not tested"

ON_TEST = {
    name: known(name)
    for name in ("worst_class", "worst_group", "ece", "nll", "brier", "aurc", "augrc", "coverage_at_5")
}
"""Of the clean test split, beside the measure."""
AGREEMENT = {name: known(name) for name in ("agreement_teacher_right", "agreement_teacher_wrong")}
UNDER_SHIFT = ("ece", "nll", "brier")
_OUT = {"auroc": "AUROC", "fpr95": "FPR95"}
_SCORE = "msp"
"""The score of OOD detection that is stated: the largest probability."""


@dataclass(frozen=True)
class Line:
    """One metric of student and control.

    Attributes:
        name: of it, in results.json.
        metric: how it is shown, and which direction is better.
        student: mean over the seeds of both.
        control: likewise.
        difference: student less control, paired by seed.
        margin: within which it counts as kept; None: none was set.
        p: of the paired t test, after Holm's correction over the family; None where nothing was tested.
        tests: of the family.
        seeds: of the runs; `difference` has fewer where some lack a value.
    """

    name: str
    metric: Metric
    student: float
    control: float
    difference: Paired
    margin: float | None
    p: float | None
    tests: int = 1
    seeds: int = 0

    @property
    def gain(self) -> float:
        """By how much the student is better; negative where it is worse."""
        return self.metric.gain(self.student, self.control)

    @property
    def verdict(self) -> str:
        """One rule each, the first that holds: see `kdexp.report.loss_statement_text.RULES`."""
        if self.p is None:
            return NOT_TESTED
        if self.p < 1 - CONFIDENCE:
            return BETTER if self.gain > 0 else WORSE
        # A class that both never get right is not kept.
        is_nothing = self.student == self.control == 0 and not self.metric.lower_is_better
        is_kept = self.margin is not None and is_equivalent(self.difference.differences, self.margin) and not is_nothing
        return KEPT if is_kept else NOT_SIGNIFICANT


@dataclass(frozen=True)
class LossStatement:
    """What is stated of one configuration.

    Attributes:
        label: of the configuration.
        seeds: of the runs that have a control.
        lines: the measure, which is a family of its own, and the others that were measured.
        classes: the accuracy of each class, a family of its own; none where accuracy is not the measure.
        placebos: the measure against each placebo, whose label is the line's name; a family of its own.
        not_measured: names of metrics.
        teacher_wrong: the samples (of the first seed) on which the teacher is wrong; None: not known.
        acceptable: why the losses are acceptable, in the user's words.
        candidates: among so many configurations it was chosen on val, placebos aside.
        tuned: of the best trial of a search, see `kdexp.report.runs.Run`; empty of all others.
    """

    label: str
    seeds: Sequence[int]
    lines: Sequence[Line]
    classes: Sequence[Line]
    placebos: Sequence[Line]
    not_measured: Sequence[str]
    teacher_wrong: int | None
    acceptable: str
    candidates: int = 1
    tuned: Record = field(default_factory=dict)

    def of(self, *verdicts: str) -> list[Line]:
        """The lines with these verdicts, and the classes that are better or worse."""
        classes = [line for line in self.classes if line.verdict in (BETTER, WORSE)]
        return [line for line in (*self.lines, *classes) if line.verdict in verdicts]


@dataclass(frozen=True)
class _Pair:
    """A run, its control, the robustness report of the run, and how far the control agrees with the run's teacher.

    The last two are empty where they are not there.
    """

    student: Run
    control: Run
    report: Record
    agreement: Mapping[str, float]


_Values = Callable[[_Pair], tuple[object, object]]
"""The value of the student and that of the control, of whatever a file says."""


def of_comparison(comparison: Comparison) -> LossStatement | None:
    """What is stated of the configuration that was chosen, placebos aside.

    Args:
        comparison: of runs.

    Returns:
        None without a control of the same seeds, and of ``quick=true``, whose numbers mean nothing.
    """
    taught = next((group for group in comparison.ranked if not is_placebo(group) and group.gain), None)
    if taught is None or comparison.is_quick:
        return None
    pairs = [
        _pair(run, taught.controls[run.seed], comparison.reports.get(run.folder, {}))
        for run in taught.runs
        if run.seed in taught.controls
    ]
    others = [group for group in comparison.ranked if is_placebo(group) and group.family == taught.family]
    stated = _statement(taught.label, pairs, others)
    acceptable = stated.acceptable if comparison.acceptable is None else comparison.acceptable
    candidates = sum(not is_placebo(group) for group in comparison.candidates)
    return replace(stated, acceptable=acceptable, candidates=candidates)


def of_run(label: str, run: Run, control: Run, report: Record) -> LossStatement:
    """What is stated of one run.

    Args:
        label: of the run.
        run: a distilled one.
        control: its control.
        report: the run's robustness.json; empty without one.
    """
    return _statement(label, [_pair(run, control, report)], [])


def _pair(run: Run, control: Run, report: Record) -> _Pair:
    return _Pair(run, control, report, agreement_of_control(run, control))


def agreement_of_control(run: Run, control: Run) -> Mapping[str, float]:
    """How far a run's control agrees with the run's teacher: by what both decided, else as its results.json says."""
    with suppress(ValueError):  # a damaged file is no reason to state nothing
        if run.decisions is not None and control.decisions is not None:
            return decisions.agreement_of_control(run.decisions, control.decisions)
    found: Mapping[str, float] = run.results.get("control_agreement") or {}
    return found


def _statement(label: str, pairs: Sequence[_Pair], placebos: Sequence[RunGroup]) -> LossStatement:
    first = pairs[0].student
    settings = first.results["config"].get("loss_statement", {})
    measured = {
        name: (metric, _line(name, metric, [values(pair) for pair in pairs], settings))
        for name, (metric, values) in _wanted(first.measure, pairs)
    }
    lines = [line for _, line in measured.values() if line is not None]
    wrong = pairs[0].agreement.get("teacher_wrong")
    return LossStatement(
        label,
        [pair.student.seed for pair in pairs],
        [
            *(line for line in lines if line.name == first.measure),
            *_corrected([line for line in lines if line.name != first.measure]),
        ],
        _corrected(_classes(pairs) if pairs[0].student.measure == "acc" else []),
        _corrected(_against(first.measure, pairs, placebos, settings)),
        [metric.name for metric, line in measured.values() if line is None],
        int(wrong) if _is_known(wrong) else None,
        settings.get("acceptable", ""),
        tuned=first.tuned or pairs[0].control.tuned,
    )


def _wanted(measure: str, pairs: Sequence[_Pair]) -> Iterator[tuple[str, tuple[Metric, _Values]]]:
    """The lines that there may be, the measure first; of other tasks than classification those that mean something."""

    def on_test(name: str) -> _Values:
        return lambda pair: (pair.student.metric(name), pair.control.metric(name))

    def under(name: str, wanted: Callable[[str], bool]) -> _Values:
        return lambda pair: (_mean(pair.report, STUDENT, name, wanted), _mean(pair.report, CONTROL, name, wanted))

    def agreeing(name: str) -> _Values:
        return lambda pair: (pair.student.metric(name), pair.agreement.get(name))

    yield measure, (known(measure), on_test(measure))
    of_classes = measure == "acc"
    for name, metric in ON_TEST.items():
        if of_classes or (name in UNDER_SHIFT and any(None not in on_test(name)(pair) for pair in pairs)):
            yield name, (_counted(metric, pairs) if name == "worst_group" else metric, on_test(name))
    for name, metric in AGREEMENT.items() if of_classes else ():
        yield name, (metric, agreeing(name))
    for name in (measure, *UNDER_SHIFT):
        metric = replace(known(name), name=f"{known(name).name} under corruptions")
        yield f"corruptions {name}", (metric, under(name, is_of_corruptions))
    metric = replace(known(measure), name=f"{known(measure).name} under attacks")
    yield f"attacks {measure}", (metric, _attacked)
    if of_classes:
        yield from _out_of_distribution(pairs)


def _counted(metric: Metric, pairs: Sequence[_Pair]) -> Metric:
    """A metric of groups, whose name says how few samples there may be in one."""
    counts = [count for pair in pairs for count in pair.student.results.get("samples_of_group", {}).values()]
    if not counts:
        return metric
    return replace(metric, name=f"{metric.name} (the smallest has {counted(min(counts), 'test sample')})")


def _out_of_distribution(pairs: Sequence[_Pair]) -> Iterator[tuple[str, tuple[Metric, _Values]]]:
    """AUROC and FPR95 of near and far lists; without such of each data set by its name."""

    def entries(pair: _Pair) -> dict[str, Record]:
        metrics = pair.report.get("metrics", {})
        return {name: entry for axis, name, entry in flat(metrics) if axis.startswith("ood")}

    def of(name: str) -> _Values:
        return lambda pair: (entries(pair).get(name, {}).get(STUDENT), entries(pair).get(name, {}).get(CONTROL))

    data = dict.fromkeys(name.rpartition(" ")[0] for pair in pairs for name in entries(pair))
    lists = [name for name in data if name in ("near", "far")]
    for data_set in lists or data or ("near", "far"):
        for name, word in _OUT.items():
            metric = replace(known(name), name=f"{word} of OOD detection, {data_set}")
            yield f"ood {data_set} {name}", (metric, of(f"{data_set} {_SCORE}_{name}"))


def _mean(report: Record, role: str, name: str, wanted: Callable[[str], bool]) -> float | None:
    """A metric's mean over the conditions of an axis."""
    rows = [row for row in report.get("conditions", ()) if row["model"] == role and wanted(row["axis"])]
    values = [row[name] for row in rows if _is_known(row.get(name))]
    return statistics.fmean(values) if values and len(values) == len(rows) else None


def _attacked(pair: _Pair) -> tuple[object, object]:
    """The measure's mean from no attack to the strongest, as the report states it."""
    under = pair.report.get("accuracy_under")
    entry = under.get("attacks") if isinstance(under, Mapping) else None
    return (entry.get(STUDENT), entry.get(CONTROL)) if isinstance(entry, Mapping) else (None, None)


def _line(name: str, metric: Metric, values: Sequence[tuple[object, object]], settings: Record) -> Line | None:
    """None where no seed has both values."""
    both = [(own, alone) for own, alone in values if _is_known(own) and _is_known(alone)]
    difference = paired([own - alone for own, alone in both])
    if difference is None:
        return None
    own, alone = (statistics.fmean(side) for side in zip(*both, strict=True))
    base = name.rpartition(" ")[2]
    margin = settings.get("margins", {}).get(base)
    share = settings.get("relative_margins", {}).get(base)
    if margin is None and share is not None:
        margin = share * abs(alone)
    return Line(name, metric, own, alone, difference, margin, difference.p, seeds=len(values))


def _is_known(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _corrected(lines: Sequence[Line]) -> list[Line]:
    """The lines of one family."""
    adjusted = holm([line.p for line in lines])
    tests = sum(p is not None for p in adjusted)
    return [replace(line, p=p, tests=tests) for line, p in zip(lines, adjusted, strict=True)]


def _classes(pairs: Sequence[_Pair]) -> list[Line]:
    names = pairs[0].student.results["config"]["dataset"].get("classes") or []
    counts = [[_recalls(run) for run in (pair.student, pair.control)] for pair in pairs]
    found = []
    for number in range(min((len(recalls) for pair in counts for recalls in pair), default=0)):
        named = names[number] if number < len(names) else str(number)
        name = f"class {number}" + (f" ({named})" if named != str(number) else "")
        metric = replace(known("acc"), name=f"accuracy of {name}")
        values = [(own[number], alone[number]) for own, alone in counts]
        line = _line(f"class {number}", metric, values, {})
        found += [line] if line is not None else []
    return found


def _recalls(run: Run) -> list[float | None]:
    """Of each class the share of its test samples that is right."""
    confusion = run.results.get("curves", {}).get("confusion") or []
    return [row[number] / sum(row) if sum(row) else None for number, row in enumerate(confusion)]


def _against(measure: str, pairs: Sequence[_Pair], placebos: Sequence[RunGroup], settings: Record) -> list[Line]:
    """The measure of the taught student beside that of each placebo in the control's place."""
    found = []
    for group in placebos:
        others = {run.seed: run.metric(measure) for run in group.runs}
        values = [(pair.student.metric(measure), others.get(pair.student.seed)) for pair in pairs]
        line = _line(measure, known(measure), values, settings)
        found += [replace(line, name=group.label)] if line is not None else []
    return found
