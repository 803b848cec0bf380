"""The loss statement in words: one rule for each sentence, as a line for the terminal and as a page of Markdown."""

from collections.abc import Iterator, Sequence

from kdexp.config.untrusted import printable
from kdexp.naming import counted
from kdexp.report.glossary import Metric, capitalized
from kdexp.report.loss_statement import (
    BETTER,
    KEPT,
    NOT_SIGNIFICANT,
    NOT_TESTED,
    WORSE,
    Line,
    LossStatement,
)
from kdexp.report.statistics import FEWEST_SEEDS
from kdexp.results import Record

TITLE = "What the student kept and what it lost"
NOBODY = "Nobody has said why."
NEVER_MEASURED = "Never measured of a classifier: privacy, safety, grounding, reliability of the process, stability."
RULES = {
    BETTER: "p < 0.05 after correction, and the mean difference is in the good direction.",
    WORSE: "p < 0.05 after correction, and the mean difference is in the bad direction.",
    KEPT: "neither, and two one-sided t tests at 5 % show that the difference is below the margin: the 90 % interval "
    "lies wholly inside of it. Each line is tested for itself: of many some are kept by chance. Margins are set before "
    "the run (loss_statement.margins).",
    NOT_SIGNIFICANT: "none of these. It says neither that something was lost nor that nothing was.",
    NOT_TESTED: f"fewer than {FEWEST_SEEDS} seeds, or all seeds differ by the same amount.",
}
_METHOD = (
    "paired t test over seeds. The measure is tested for itself; p values of all other lines are corrected together by "
    "Holm's method, those of the classes and of the placebos each among themselves. All of it speaks of other seeds "
    "with the same teacher and test set."
)
MOTIVATION = (
    "Why it is stated: arXiv 2604.25110 (what distillation loses), arXiv 2510.12615 (controls, tests, wrong knowledge "
    "that is taken over). The form is kdexp's own."
)
_SHOWN = 3  # classes that lost most, where nothing was tested


def method(statement: LossStatement) -> str:
    """What is compared with what, and how it is tested."""
    control = "the same student, data, recipe and seed, without a teacher"
    if trials := statement.tuned.get("control_trials"):
        best = f"the best on val of {counted(trials, 'trial')}"
        control = f"the same student, data and seed, without a teacher, with a recipe of its own, {best}"
    return f"Student less control ({control}), {_METHOD}"


def headline(statement: LossStatement) -> str:
    """The verdicts in one line: ``better: accuracy; worse: class 3, ECE; 5 lines not significant``."""
    said = [
        f"{verdict}: {', '.join(map(_short, lines))}"
        for verdict in (BETTER, WORSE, KEPT)
        if (lines := statement.of(verdict))
    ]
    open_ = statement.of(NOT_SIGNIFICANT)
    said += [f"not significant: {len(open_)} of {len(statement.lines)} lines"] if open_ else []
    untested = [*statement.of(NOT_TESTED), *_most_lost(statement)[:1]]
    for word, sign in (("better on average", 1), ("worse on average", -1), ("the same", 0)):
        found = [line for line in untested if (line.gain > 0) - (line.gain < 0) == sign]
        said += [f"{word}, not tested: {', '.join(map(_short, found))}"] if found else []
    return "; ".join(said) or "nothing was measured of both"


def sentences(statement: LossStatement) -> dict[str, list[str]]:
    """The headings and what stands under each."""
    worse = [sentence(line) for line in statement.of(WORSE)]
    kept = [sentence(line) for line in statement.of(BETTER, KEPT)]
    open_ = [sentence(line) for line in statement.of(NOT_SIGNIFICANT, NOT_TESTED)]
    open_ += [f"Of the classes most lost: {sentence(line)}" for line in _most_lost(statement)]
    found = {
        "What was kept": kept or ["Nothing was shown to be better or kept."],
        "What was lost": [
            *(worse or ["No loss was shown, which does not show that there is none."]),
            *_taken_over(statement),
        ],
        "Why that is acceptable": [_one_line(statement.acceptable) or NOBODY],
        "What the seeds leave open": open_ or ["Nothing."],
        "Beyond placebos": [_beyond(line) for line in statement.placebos],
        "Not measured": [*(f"{capitalized(name)}." for name in statement.not_measured), NEVER_MEASURED],
    }
    return {heading: lines for heading, lines in found.items() if lines}


def sentence(line: Line) -> str:
    """What there is to say of a line by its verdict."""
    metric, name = line.metric, capitalized(_one_line(line.metric.name))
    own, alone = (metric.in_unit(metric.number(value)) for value in (line.student, line.control))
    by = f"{own} against the control's {alone}, {metric.difference(line.difference.mean)}{_fewer(line)}"
    if line.verdict == NOT_TESTED:
        return f"{name}: {by}. Not tested: {_why_not(line)}."
    tested = f"{by} (95 % t interval {interval(line)}, {p_of(line)})"
    if line.verdict in (BETTER, WORSE):
        return f"{name} is {line.verdict}: {tested}."
    if line.verdict == KEPT:
        assert line.margin is not None
        return f"{name} is kept within {_margin(metric, line.margin)}: {tested}."
    return f"{name} does not differ significantly: {tested}{_shown_from(line)}."


def interval(line: Line) -> str:
    """The ends of the 95 % interval of the difference; empty where there is none."""
    ends = line.difference.interval
    return " to ".join(line.metric.number(end, sign=True) for end in ends) if ends else ""


def p_of(line: Line) -> str:
    """The p, and over how many tests it was corrected; empty where nothing was tested."""
    if line.p is None:
        return ""
    return f"p = {line.p:.2g}" + (f" by Holm over {line.tests}" if line.tests > 1 else "")


def _shown_from(line: Line) -> str:
    """The smallest mean difference that would have been significant at this spread, half of the interval, if any."""
    assert line.difference.interval is not None
    low, high = line.difference.interval
    if low == high:
        return ""
    least = f"{line.metric.number((high - low) / 2)} {line.metric.differs_in}".rstrip()
    return f"; a difference of {least} would have, tested alone"


def _margin(metric: Metric, margin: float) -> str:
    return f"±{metric.number(margin)} {metric.differs_in}".rstrip()


def _why_not(line: Line) -> str:
    seeds = line.difference.n
    if seeds < FEWEST_SEEDS:
        return f"{seeds} seed{'s' if seeds > 1 else ''}, a test needs {FEWEST_SEEDS}"
    return "every seed differs by the same amount"


def _one_line(text: str) -> str:
    """Somebody else's words without what moves a cursor or begins a heading."""
    return " ".join(printable(text).split())


def _short(line: Line) -> str:
    return _one_line(line.metric.name).removeprefix("accuracy of ")


def _most_lost(statement: LossStatement) -> list[Line]:
    """Of classes that were not tested those that lost most."""
    lost = [line for line in statement.classes if line.verdict == NOT_TESTED and line.gain < 0]
    return sorted(lost, key=lambda line: line.gain)[:_SHOWN]


def _taken_over(statement: LossStatement) -> Iterator[str]:
    """Whether errors of the teacher were taken over more than what it has right."""
    found = {line.name: line for line in statement.lines}
    right, wrong = (found.get(f"agreement_teacher_{how}") for how in ("right", "wrong"))
    if right is None or wrong is None or wrong.verdict != WORSE or wrong.difference.mean <= right.difference.mean:
        return
    metric = wrong.metric
    count = "" if statement.teacher_wrong is None else f" ({statement.teacher_wrong} test samples)"
    yield (
        f"The teacher's errors{count} were taken over more than what it has right: against the control, the "
        f"agreement changed by {metric.difference(wrong.difference.mean)} there and by "
        f"{metric.difference(right.difference.mean)} elsewhere."
    )


def _beyond(line: Line) -> str:
    """What a trained teacher gives beyond a placebo."""
    said = {
        BETTER: "The teacher gives more than",
        WORSE: "The teacher gives less than",
        KEPT: "The teacher gives the same, within the margin, as",
        NOT_SIGNIFICANT: "The teacher is not shown to give more than",
        NOT_TESTED: "Not tested against",
    }[line.verdict]
    tested = f" (95 % t interval {interval(line)}, {p_of(line)})" if line.p is not None else ""
    return (
        f"{said} {_one_line(line.name)}: {line.metric.difference(line.difference.mean)} of {line.metric.name}{tested}."
    )


def markdown(statement: LossStatement, subject: str) -> str:
    """The statement as a page to read and to pass on.

    Args:
        statement: see `LossStatement`.
        subject: which students, taught by whom, on what.
    """
    seeds = ", ".join(map(str, statement.seeds))
    about = f"{_one_line(statement.label)} against its control, seed{'s' if len(statement.seeds) > 1 else ''} {seeds}."
    if trials := statement.tuned.get("trials"):
        about += f" Its settings are the best on val of {counted(trials, 'trial')} with one seed."
    elif statement.candidates > 1:
        about += f" Chosen on val among {statement.candidates} configurations: confirm it on fresh seeds."
    lines = [f"# {TITLE}: {_one_line(subject)}", "", about, "", f"**{capitalized(headline(statement))}.**", ""]
    for heading, said in sentences(statement).items():
        lines += [f"## {heading}", "", *(f"- {one}" for one in said), ""]
    lines += ["## All lines", "", *_table(statement.lines), ""]
    lines += ["## How to read it", "", method(statement), ""]
    lines += [f"- *{verdict}*: {rule}" for verdict, rule in RULES.items()]
    return "\n".join([*lines, "", MOTIVATION, ""])


def _table(lines: Sequence[Line]) -> Iterator[str]:
    yield "| | student | control | difference | 95 % t interval | p | |"
    yield "|---|---|---|---|---|---|---|"
    for line in lines:
        metric = line.metric
        unit = f", {metric.shown_in}" if metric.shown_in else ""
        cells = [
            f"{_one_line(metric.name)}{unit}{_fewer(line)}",
            metric.number(line.student),
            metric.number(line.control),
            metric.number(line.difference.mean, sign=True),
            interval(line),
            p_of(line),
            line.verdict,
        ]
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _fewer(line: Line) -> str:
    return f" ({line.difference.n} of {line.seeds} seeds)" if line.difference.n < line.seeds else ""


def as_json(statement: LossStatement) -> Record:
    """As it stands in results.json."""
    return {
        "headline": headline(statement),
        "seeds": list(statement.seeds),
        "lines": {
            line.name: {
                "student": line.student,
                "control": line.control,
                "difference": line.difference.mean,
                "interval": line.difference.interval,
                "p": line.p,
                "margin": line.margin,
                "verdict": line.verdict,
            }
            for line in (*statement.lines, *statement.classes)
        },
        "not_measured": list(statement.not_measured),
    }
