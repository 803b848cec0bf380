"""The answer in words: which configuration, by how much, is it statistically significant."""

from collections.abc import Sequence

from kdexp.config import quick
from kdexp.naming import counted
from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.glossary import Metric
from kdexp.report.loss_statement import of_comparison
from kdexp.report.loss_statement_text import headline as kept_and_lost
from kdexp.report.run_group import RunGroup
from kdexp.report.statistics import FEWEST_SEEDS, NOT_TESTED, TOO_FEW, Paired

_NAMED = 3  # more that are tied are counted
_COMPARED = {
    "better": "is better than",
    "worse": "is worse than",
    "not significant": "does not differ significantly from",
}


def answer(comparison: Comparison) -> list[str]:
    """Sentences for the terminal and the page: the choice, the difference, how sure it is, what to be wary of."""
    if comparison.is_quick:
        return [f"{quick.NOTE[0].upper()}{quick.NOTE[1:]}."]
    winner, control = comparison.winner, comparison.control
    if winner is None:
        return [_nothing_distilled(comparison)]
    metric = glossary.known(comparison.measure)
    chosen = f"{_choice(comparison, winner)}: {winner.label}, {spread(winner, 'val')} on val."
    if comparison.tied:
        chosen += f" It is {tie(comparison)}."
    if control is None:
        return [
            chosen,
            f"On test it reaches {spread(winner)}. There is no control (alpha=1) of the same student, data and recipe "
            "among these runs, so nothing says what distillation adds.",
        ]
    said = [chosen, f"On test it reaches {spread(winner)}, the control {spread(control)}."]
    if winner.gain is None:
        said.append("No seed was run with both, so the two cannot be paired.")
    else:
        said += [difference(winner.gain, metric), significance(winner.gain)]
        if statement := of_comparison(comparison):
            other = "" if statement.label == winner.label else f" by {statement.label}"
            said.append(f"Kept and lost{other} (loss_statement.md): {kept_and_lost(statement)}.")
        tests = sum(group.gain is not None and group.gain.p is not None for group in comparison.distilled)
        if tests > 1:
            said.append(f"{tests} configurations are tested here, and the p values are not corrected for that.")
    if winner.trials is not None:
        said.append(_budget(winner))
    if len({group.axes.get("dataset") for group in comparison.distilled}) > 1:
        said.append(
            f"These are several data sets, whose {metric.values} say nothing of each other: where=dataset=NAME."
        )
    own, alone = (group.mean(comparison.measure, "val") for group in (winner, control))
    if own is not None and alone is not None and metric.gain(own, alone) <= 0:
        said.append(
            f"On val the control is as good or better ({spread(control, 'val')}): val alone would not have chosen it."
        )
    elif len(comparison.candidates) > 1:
        said.append(
            f"It was selected as the best of {len(comparison.candidates)} on these seeds, so its gain is biased "
            "upwards (selection bias): confirm it on fresh seeds."
        )
    return said


def _budget(winner: RunGroup) -> str:
    """How many trials both sides were given, and over which settings."""
    tuned = winner.runs[0].tuned
    student = f"{counted(tuned['trials'], 'trial')} of the student over {', '.join(tuned['settings'])}"
    if not tuned["control_trials"]:
        return f"Budget: {student}; none of the control, to which these settings mean nothing."
    return f"Budget: {student}; {tuned['control_trials']} of the control over {', '.join(tuned['control_settings'])}."


def headline(comparison: Comparison) -> str:
    """The answer in one sentence: is the chosen configuration better than the control, how much, how sure is it."""
    winner = comparison.winner
    if winner is None or winner.gain is None or comparison.is_quick:
        return ""
    gain = winner.gain
    metric = glossary.known(comparison.measure)
    by = f"{metric.difference(gain.mean)} of test {metric.name}"
    if gain.interval is not None:
        by += f" (95 % interval {interval(gain, metric)}, p = {gain.p:.2g}, {gain.n} seeds)"
    if gain.p is None:
        return f"{winner.label} against the control: {by}; {gain.verdict}: {tested(gain)}."
    return f"{winner.label} {_COMPARED[gain.verdict]} the control: {by}."


def tie(comparison: Comparison) -> str:
    """Which configurations are as good on val as the chosen one, and why that one was chosen."""
    tied = f"tied on val with {_listed(comparison.tied)}"
    if comparison.tied_in_nll:
        same = "too" if comparison.tied_in_nll == comparison.tied else f"with {_listed(comparison.tied_in_nll)}"
        return f"{tied}, in val NLL {same}: chosen as the first of them on the command line"
    own, other = (group.mean("nll", "val") for group in (comparison.ranked[0], comparison.tied[0]))
    reason = f"{own:.8g} against {other:.8g}" if other is not None else "the others have none"
    return f"{tied}: chosen by lower val NLL ({reason})"


def _listed(groups: Sequence[RunGroup]) -> str:
    names = [group.label for group in groups[:_NAMED]]
    return ", ".join(names) + (f" and {len(groups) - _NAMED} more" if len(groups) > _NAMED else "")


def difference(gain: Paired, metric: Metric) -> str:
    """What the mean of the paired differences is, and its interval."""
    mean = f"Seed by seed it differs from the control by {metric.difference(gain.mean)}"
    if gain.n == 1:
        return f"{mean}: one seed."
    if gain.interval is None:
        return f"{mean} on average over {gain.n} seeds."
    return f"{mean} on average, 95 % t interval over {gain.n} seeds {interval(gain, metric)}."


def interval(gain: Paired, metric: Metric) -> str:
    """The ends of the interval of differences; where there is none, why."""
    return gain.verdict if gain.interval is None else " to ".join(metric.number(e, sign=True) for e in gain.interval)


def significance(gain: Paired) -> str:
    """What the test says, or why there is none."""
    up, down = (sum(sign * value > 0 for value in gain.differences) for sign in (1, -1))
    signs = f"{up} of {gain.n} seeds gain, {down} lose"
    return f"{gain.verdict.capitalize()}: {tested(gain)}; {signs}."


def tested(gain: Paired) -> str:
    """The test and its p, or why there is none."""
    if gain.p is not None:
        return f"paired t test, p = {gain.p:.3g} over {gain.n} seeds"
    reasons = {
        TOO_FEW: f"a paired t test needs {FEWEST_SEEDS}",
        NOT_TESTED: "every seed differs by the same amount, which leaves no spread for a t test",
    }
    return reasons[gain.verdict]


def spread(group: RunGroup, split: str = "test", epoch: str = "best") -> str:
    """The measure in its unit: mean, and standard deviation over seeds where there are several."""
    mean, std = (of(group.measure, split, epoch) for of in (group.mean, group.std))
    metric = glossary.known(group.measure)
    return f"an unknown {metric.name}" if mean is None else metric.in_unit(metric.spread(mean, std))


def _choice(comparison: Comparison, winner: RunGroup) -> str:
    """By what the winner was chosen, and among what."""
    others = [group for group in comparison.distilled if group is not winner and group.values(comparison.measure)]
    if winner.trials is not None and not others:  # what else is there are its trials
        return f"Settings of the best of {counted(winner.trials, 'trial')}, by val with one seed"
    return f"Chosen by mean validation {glossary.known(comparison.measure).averaged}{_among(comparison)}"


def _among(comparison: Comparison) -> str:
    tried, able = len(comparison.distilled), len(comparison.candidates)
    if tried == 1:
        return ""
    return (
        f" among {tried} configurations"
        if tried == able
        else f" among {able} of {tried} configurations (the rest: fewer seeds)"
    )


def _nothing_distilled(comparison: Comparison) -> str:
    if comparison.controls:
        return "There are only controls here (students trained alone): nothing to choose between."
    return f"None of the {len(comparison.runs)} runs is completed: there is nothing to compare."
