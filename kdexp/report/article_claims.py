"""Whether distillation does what it is said to do: less training data, better features, less sensitive to noise.

What would show each claim is fixed here, before anybody looks at numbers; all differences are of distilled student and
control with the same seed, and are turned such that more is better.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.condition_curves import ConditionCurve, ConditionLine, condition_curves
from kdexp.report.robustness import Report, measure_of, metric_of
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import FEWEST_SEEDS, NOT_TESTED, TOO_FEW, Paired, paired, with_p


@dataclass(frozen=True)
class Evidence:
    """One thing that was measured of student and control.

    Attributes:
        what: it is.
        control: mean over seeds.
        student: likewise.
        gain: the differences, paired by seed; positive where the student is better.
        decides: whether the claim stands or falls with it; else it is told beside it.
    """

    what: str
    control: float
    student: float
    gain: Paired
    decides: bool = True


@dataclass(frozen=True)
class Claim:
    """One of the source article's claims, and what speaks for and against it.

    Attributes:
        name: the claim.
        evidence: what was measured; nothing when the runs for it are not there.
        remarks: sentences on it.
    """

    name: str
    evidence: Sequence[Evidence]
    remarks: Sequence[str]

    @property
    def verdict(self) -> str:
        """In words; it holds where all that decides is better by the paired t test."""
        found = [one.gain.verdict for one in self.evidence if one.decides]
        if not found:
            return "not measured"
        if all(verdict == "better" for verdict in found):
            return "holds"
        if "better" in found:
            return "holds in part"
        if "worse" in found and TOO_FEW not in found:
            return "does not hold"
        return next((verdict for verdict in (TOO_FEW, NOT_TESTED) if verdict in found), "not significant")


def article_claims(comparison: Comparison) -> list[Claim]:
    """The claims, as far as anything was measured of at least two of them; else none. They are of shares.

    Args:
        comparison: the runs. The student is that of the chosen configuration; all its data are looked at.
    """
    if glossary.known(comparison.measure).unit:
        return []
    along = {curve.axis: sides for curve in condition_curves(comparison) if (sides := _sides(curve, comparison))}
    evaluated = _evaluated(comparison)
    found = [
        _less_data(*along["dataset.train_fraction"]) if "dataset.train_fraction" in along else _nothing(_LESS_DATA),
        _better_features(evaluated) if evaluated else _nothing(_BETTER_FEATURES, _NO_REPORTS),
        _less_noise(along.get("dataset.label_noise"), evaluated, comparison.measure),
    ]
    return found if sum(bool(claim.evidence) for claim in found) > 1 else []


_LESS_DATA, _BETTER_FEATURES = "A distilled student needs less training data", "It learns better features"
_LESS_NOISE = "It is less sensitive to noise"
_NO_REPORTS = (
    "No student has a robustness report beside its control: kdexp-eval sweep=FOLDER robustness=article does that."
)


def _nothing(name: str, *remarks: str) -> Claim:
    return Claim(name, (), remarks)


def _sides(curve: ConditionCurve, comparison: Comparison) -> tuple[ConditionLine, ConditionLine] | None:
    """The control and the chosen way of distilling along a curve, at the levels that both have: at least two."""
    if curve.control is None or curve.where:
        return None
    winner = comparison.winner
    student = next((line for line in curve.students if winner in line.groups.values()), curve.students[0])
    levels = [level for level in student.groups if level in curve.control.groups]
    if len(levels) < 2:
        return None
    control, student = (
        replace(line, groups={level: line.groups[level] for level in levels}) for line in (curve.control, student)
    )
    return control, student


def _evaluated(comparison: Comparison) -> dict[int, Report]:
    """Seed -> report, of the configuration with most reports of student and control; the chosen one first."""
    found, reports = [], comparison.reports
    for group in sorted(comparison.distilled, key=lambda group: group is not comparison.winner):
        own = {run.seed: reports[run.folder] for run in group.runs if run.folder in reports}
        found.append({seed: one for seed, one in own.items() if {"student", "control"} <= set(one["models"])})
    return max(found, key=len, default={})


def _less_data(control: ConditionLine, student: ConditionLine) -> Claim:
    levels = list(student.groups)
    few, whole = levels[:-1], levels[-1]
    gain = student.mean_gain(few)
    if gain is None:
        return _nothing(_LESS_DATA)
    own, alone, metric = _means(student), _means(control), glossary.known(student.measure).name
    said = ", ".join(f"{100 * level:g}" for level in few)
    evidence = [
        Evidence(
            f"{metric} with {said} % of the training samples, mean",
            statistics.fmean(alone[:-1]),
            statistics.fmean(own[:-1]),
            gain,
        )
    ]
    for place, level in enumerate(levels):
        single = student.mean_gain([level])
        if single is not None:
            what = f"{metric} with {100 * level:g} % of them"
            evidence.append(Evidence(what, alone[place], own[place], single, decides=False))
    needed = fraction_needed(levels, own, alone[-1])
    reached = (
        f"the student reaches that with {100 * needed / whole:.0f} % of them (by the means, between the fractions "
        "that were tried)"
        if needed is not None
        else "the student does not reach that with any fraction that was tried"
    )
    remarks = [f"With all its samples the control has {100 * alone[-1]:.2f} %; {reached}."]
    remarks.append(_of_the_teacher(student.groups[few[0]], "train_fraction"))
    return Claim(_LESS_DATA, evidence, remarks)


def _of_the_teacher(group: RunGroup, name: str) -> str:
    """What the teacher had learned from: with all the labels it brings what the student's fraction lacks."""
    recipe = group.runs[0].settings.get(f"teacher.recipe.{name}")
    own = group.runs[0].settings.get(f"dataset.{name}")
    if name == "label_noise":
        return (
            "The teacher was trained on the same noisy labels."
            if recipe == own
            else "The teacher was trained on clean labels, and brings what the student's lack."
        )
    return (
        "The teacher was trained on the same fraction of the samples."
        if recipe == own
        else "The teacher was trained on all the samples, and brings what the student's fraction lacks."
    )


def _means(line: ConditionLine) -> list[float]:
    return [group.mean(group.measure) or 0.0 for group in line.groups.values()]


def fraction_needed(fractions: Sequence[float], values: Sequence[float], target: float) -> float | None:
    """The smallest fraction of the data with which a value is reached; linear in the logarithm of the fraction.

    Args:
        fractions: rising, > 0.
        values: with each of them.
        target: the value wanted.

    Returns:
        The fraction of the first crossing; None where it is never reached.
    """
    if values[0] >= target:
        return fractions[0]
    for place in range(1, len(fractions)):
        before, after = values[place - 1], values[place]
        if after >= target:
            way = (target - before) / (after - before)
            return math.exp(math.log(fractions[place - 1]) * (1 - way) + math.log(fractions[place]) * way)
    return None


Value = Callable[[Report, str], float | None]
"""What a report says of a role."""


def _evidence(
    what: str, evaluated: Mapping[int, Report], value: Value, *, sign: int = 1, decides: bool = True
) -> Iterator[Evidence]:
    """Nothing where it was not measured."""
    values = [(value(one, "control"), value(one, "student")) for one in evaluated.values()]
    known = [(alone, own) for alone, own in values if alone is not None and own is not None]
    gain = paired([sign * (own - alone) for alone, own in known])
    if gain is not None:
        control, student = (statistics.fmean(side) for side in zip(*known, strict=True))
        yield Evidence(what, control, student, gain, decides)


def _better_features(evaluated: Mapping[int, Report]) -> Claim:
    first = next(iter(evaluated.values()))
    own, names = first["dataset"], list(first["metrics"].get("representations", {}))
    other = next((name for name in names if name != own), None)
    evidence: list[Evidence] = []
    for name in [*([other] if other else []), *([own] if own in names else [])]:
        place = f"{name} (another data set)" if name == other else f"{name} (labels that did not train it)"
        for metric, words in (("linear_probe_acc", "a linear classifier"), ("knn_acc", "nearest neighbors")):
            decides = metric == "linear_probe_acc" and name == (other or own)
            what = f"accuracy of {words} on the frozen features, {place}"
            evidence += _evidence(what, evaluated, _of("representations", name, metric), decides=decides)
    what = "similarity of the features to the teacher's (CKA)"
    evidence += _evidence(what, evaluated, _of("representations", own, "cka_to_teacher"), decides=False)
    return Claim(_BETTER_FEATURES, evidence, ())


def _of(*path: str) -> Value:
    def value(report: Report, role: str) -> float | None:
        node: object = report["metrics"]
        for key in (*path, role):
            node = node.get(key, {}) if isinstance(node, Mapping) else {}
        return node if isinstance(node, float | int) else None

    return value


def _under_noise(report: Report, role: str) -> float | None:
    names, mean = report["metrics"].get("noise_levels", {}), f"mean_{measure_of(report)}"
    means = [_of("noise_levels", name, mean)(report, role) for name in names]
    known = [mean for mean in means if mean is not None]
    return statistics.fmean(known) if known else None


def _lost(under: Value) -> Value:
    """The measure on clean data less that under something."""

    def value(report: Report, role: str) -> float | None:
        clean, left = _of("clean", measure_of(report))(report, role), under(report, role)
        return None if clean is None or left is None else clean - left

    return value


def _corrupted(report: Report, role: str) -> float | None:
    error = _of("corruptions_lite", "mce_unnormalized")(report, role)
    return None if error is None else 1 - error


def _less_noise(
    noisy: tuple[ConditionLine, ConditionLine] | None, evaluated: Mapping[int, Report], usual: str
) -> Claim:
    evidence: list[Evidence] = []
    noises = sorted({name for one in evaluated.values() for name in one["metrics"].get("noise_levels", {})})
    kinds = ", ".join(name.replace("_", " ") for name in noises)
    metric = next((metric_of(one) for one in evaluated.values()), glossary.known(usual)).name
    evidence += _evidence(f"{metric} lost to noise in the inputs ({kinds})", evaluated, _lost(_under_noise), sign=-1)
    evidence += _evidence(f"{metric} under that noise", evaluated, _under_noise, decides=False)
    evidence += _evidence(f"{metric} lost to corruptions", evaluated, _lost(_corrupted), sign=-1)
    evidence += _evidence(f"{metric} under corruptions", evaluated, _corrupted, decides=False)
    remarks = [] if evaluated else [_NO_REPORTS]
    if noisy is not None:
        evidence += _noisy_labels(*noisy)
        remarks.append(_of_the_teacher(list(noisy[1].groups.values())[-1], "label_noise"))
    if evidence:
        said = f"Only the drop in {metric} decides: a student gets no credit for being better without noise."
        remarks.insert(0, said)
    return Claim(_LESS_NOISE, evidence, remarks)


def _noisy_labels(control: ConditionLine, student: ConditionLine) -> Iterator[Evidence]:
    levels = list(student.groups)
    noisy = [level for level in levels if level > 0]
    said, metric = ", ".join(f"{100 * level:g}" for level in noisy), glossary.known(student.measure).name
    own, alone = _means(student), _means(control)
    alone_noisy, own_noisy = (
        statistics.fmean(value for level, value in zip(levels, side, strict=True) if level > 0) for side in (alone, own)
    )
    if levels[0] == 0:
        # Lost by the control less lost by the student is the student's gain with noise less that without.
        lost = paired([statistics.fmean(found[1:]) - found[0] for found in student.gains(levels).values()])
        if lost is not None:
            what = f"{metric} lost to {said} % of noisy training labels, mean"
            yield Evidence(what, alone[0] - alone_noisy, own[0] - own_noisy, lost)
    gain = student.mean_gain(noisy)
    if gain is not None:
        what = f"{metric} with {said} % of noisy training labels, mean"
        yield Evidence(what, alone_noisy, own_noisy, gain, decides=levels[0] != 0)


def sentence(claim: Claim) -> str:
    """The verdict, and the numbers that it comes from."""
    parts = [f"{one.what}: {_number(one)}" for one in claim.evidence if one.decides]
    if not parts:
        return f"{claim.name}: not measured in these runs."
    return f"{claim.name}: {claim.verdict}. {'; '.join(parts)}."


def _number(one: Evidence) -> str:
    numbers = f"{100 * one.control:.2f} control, {100 * one.student:.2f} student, gain {_gain(one.gain)}"
    return f"{numbers} ({significance(one.gain)})"


def _gain(gain: Paired) -> str:
    ends = f" [{', '.join(f'{100 * end:+.2f}' for end in gain.interval)}]" if gain.interval else ""
    return f"{100 * gain.mean:+.2f}{ends}"


def significance(gain: Paired) -> str:
    """The verdict on one difference, and what it is from."""
    up = sum(value > 0 for value in gain.differences)
    return f"{with_p(gain.verdict, gain.p)}, {up} of {gain.n} seeds better"


METHOD = (
    "All numbers are in percent or percentage points, of the test data, means over seeds; brackets are 95 % t "
    "intervals over seeds. Better and worse mean p < 0.05 in the paired t test over the same seeds, which takes at "
    f"least {FEWEST_SEEDS}; the p values are not corrected for the number of metrics."
)


def markdown(found: Sequence[Claim], title: str) -> str:
    """The claims as a page to read and to pass on."""
    lines = [f"# {title}", "", METHOD, ""]
    for number, claim in enumerate(found, start=1):
        lines += [f"## {number}. {claim.name}: {claim.verdict}", ""]
        if claim.evidence:
            lines += ["| | control | student | gain | |", "|---|---|---|---|---|"]
            for one in claim.evidence:
                what = f"**{one.what}**" if one.decides else one.what
                lines.append(
                    f"| {what} | {100 * one.control:.2f} | {100 * one.student:.2f} "
                    f"| {_gain(one.gain)} | {significance(one.gain)} |"
                )
            lines.append("")
        lines += [" ".join(claim.remarks)] if claim.remarks else []
        lines.append("")
    lines += ["What a claim stands or falls with is in bold.", ""]
    return "\n".join(lines)
