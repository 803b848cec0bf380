"""docs/method_results.md, made of the files in docs/tables: see method_table.py."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from table_cells import (
    FINAL_SEEDS,
    NOT_HERE,
    PROBLEMS,
    PUBLISHED_SEEDS,
    RECIPE,
    ROOT,
    TRIALS,
    Method,
    Problem,
    Record,
    best,
    final_records,
    finals,
    methods,
    trials,
)

from kdexp.report.statistics import CONFIDENCE, Paired, holm, paired

PAGE = ROOT / "docs" / "method_results.md"
FIGURE = "figures/method_results.png"
MISSING = "missing"


class Row:
    """A method on one data set: what there is of it.

    Attributes:
        method: its method.
        tried: its trials, None of those that are missing.
        chosen: the best trial, once all are there.
        runs: seed -> what was measured on test.
    """

    def __init__(self, problem: Problem, method: Method, tables: Path) -> None:
        self.method = method
        self.tried = [cell.read(tables) for cell in trials(problem, method)]
        self.chosen = best(self.tried) if self.tried else None
        self.runs = final_records(problem, method, tables)

    @property
    def records(self) -> list[Record]:
        return [record for record in self.tried if record] + [*self.runs.values()]

    @property
    def is_whole(self) -> bool:
        return None not in self.tried and len(self.runs) == len(self.method.seeds)

    def accuracies(self, epoch: str = "best") -> dict[int, float]:
        """Seed -> test accuracy in %, of the runs that did not diverge."""
        done = {seed: run for seed, run in self.runs.items() if run["status"] == "completed"}
        return {seed: 100 * run["test"][epoch]["acc"] for seed, run in sorted(done.items())}

    def gain(self, control: "Row") -> Paired | None:
        """Over the control, in points; None as long as one of the two is not whole."""
        if not (self.is_whole and control.is_whole):
            return None
        own, alone = self.accuracies(), control.accuracies()
        return paired([own[seed] - alone[seed] for seed in own if seed in alone])

    def lacks(self) -> str:
        """What is missing, for a cell of the table."""
        parts = [(self.tried.count(None), len(self.tried), "trials")]
        parts += [(len(self.method.seeds) - len(self.runs), len(self.method.seeds), "seeds")]
        return f"{MISSING}: " + ", ".join(f"{lost} of {of} {name}" for lost, of, name in parts if lost)

    def diverged(self) -> str:
        lost = sum(run["status"] != "completed" for run in self.runs.values())
        return f" ({lost} diverged)" if lost else ""


def rows_of(tables: Path) -> dict[str, list[Row]]:
    """Data set -> its methods, each part with its control first."""
    return {name: [Row(p, method, tables) for method in methods(p)] for name, p in PROBLEMS.items()}


def page(tables: Path) -> str:
    """The page's text."""
    found = rows_of(tables)
    rows = [row for each in found.values() for row in each]
    records = [record for row in rows for record in row.records]
    wanted = sum(
        len(trials(problem, row.method)) + len(finals(problem, row.method))
        for name, problem in PROBLEMS.items()
        for row in found[name]
    )
    parts = [_head(records, wanted), f"![The searched methods' gains over the tuned control]({FIGURE})"]
    for name, problem in PROBLEMS.items():
        shown = "\n".join(f"    {setting}" for setting in problem.settings)
        of_part = {part: [row for row in found[name] if row.method.part == part] for part in ("tuned", "published")}
        parts += [f"## {problem.title}", _teacher(found[name]), shown, _tuned(of_part["tuned"])]
        if problem.has_published:
            parts.append(_published(of_part["published"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(records: Sequence[Record], wanted: int) -> str:
    hours = sum(record["seconds"] for record in records) / 3600
    made = {name: sorted({record[name] for record in records}) for name in ("kdexp", "torch", "cpu")}
    versions = "; ".join(f"{name} {', '.join(values)}" for name, values in made.items() if values)
    lost = wanted - len(records)
    state = f"**{lost} of them are {MISSING}**; those that are there" if lost else "They"
    seeds, few = len(FINAL_SEEDS), len(PUBLISHED_SEEDS)
    return f"""# One table of all methods

Made by `python scripts/method_table.py --out DIR` of {wanted} runs, each of which has a file in docs/tables.
{state} took {hours:.1f} hours of one core ({versions or "none yet"}).

Methods are compared with a control that got the same care. Those of the first table, and the control, were searched on
val by kdexp's own search ([hyperparameter_search.md](hyperparameter_search.md)): {TRIALS} trials each, with one seed,
over the learning rate, the weight decay and what is said below the table. The best trial of each was run with {seeds}
other seeds, which draw other training samples, too, and measured on test. Those of the second table have their
published settings, which were found on other data with other networks, and {few} seeds: it shows how far a setting
carries, not which method is best.

Test accuracy in %, of the epoch with the best validation accuracy; mean ± standard deviation over seeds. Differences
pair runs of one seed, in points, with the 95 % t interval of their mean. {_these(NOT_HERE)} are for other networks."""


def _these(names: Sequence[object]) -> str:
    return f"{', '.join(map(str, names[:-1]))} and {names[-1]}"


def _teacher(rows: Sequence[Row]) -> str:
    known = {round(100 * run["teacher_acc"], 2) for row in rows for run in row.runs.values() if run["teacher_acc"]}
    shown = " or ".join(f"{value:.2f}" for value in sorted(known))
    return f"The teacher, which had all of them, has {shown} %." if known else ""


class Compared(NamedTuple):
    """A searched method beside the control; the gain is None as long as one of the two is not whole."""

    row: Row
    gain: Paired | None
    p_by_holm: float | None
    verdict: str


def compared(rows: Sequence[Row]) -> list[Compared]:
    """The searched methods, the best first, those that are not whole last.

    Args:
        rows: the control and they.
    """
    control, *dozen = rows
    gains = [row.gain(control) for row in dozen]
    # What is missing counts as a test that shows nothing, so that p does not rise when it comes.
    corrected = holm([1.0 if gain is None else gain.p for gain in gains])
    found = [Compared(*each, _verdict(*each[1:])) for each in zip(dozen, gains, corrected, strict=True)]
    return sorted(found, key=lambda one: -one.gain.mean if one.gain else float("inf"))


def _tuned(rows: Sequence[Row]) -> str:
    control, *dozen = rows
    found = compared(rows)
    verdicts = [one.verdict for one in found]
    lines = [_tuned_row(Compared(control, None, None, "")), *map(_tuned_row, found)]
    absent = verdicts.count(MISSING)
    rest, counted = (f", {absent} are {MISSING}", f", the {MISSING} ones counted") if absent else ("", "")
    number = {verdict: verdicts.count(verdict) for verdict in ("better", "worse", "not significant")}
    searched = "\n".join(f"- {row.method.name}: {_space(row.method)}" for row in rows)
    table = "\n".join(lines)
    differ = f"{number['not significant']} are not significantly different"
    return f"""### A dozen, searched

**Of the {len(dozen)} methods {number["better"]} stand above the tuned control, {number["worse"]} below,
{differ}{rest}**
(paired t test over seeds {_these(FINAL_SEEDS)}, Holm's correction over {len(dozen)} tests{counted}, 5 %).

| method | trials | chosen | val, best trial | test | difference | p | p, Holm | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}

Searched for all were {_and(RECIPE)}. (The
learning rate ended at 0.01 at first; it was widened, and all searched anew, since val chose that end for the control
and for kd on digits.) Besides

{searched}"""


def _and(space: dict[str, str]) -> str:
    return " and ".join(f"`{key}={values}`" for key, values in space.items())


def _space(method: Method) -> str:
    own = {key: values for key, values in method.space.items() if key not in RECIPE}
    return f"`{' '.join(method.settings)}`, {_and(own) or 'nothing else'}"


def _tuned_row(one: Compared) -> str:
    row, gain, corrected, verdict = one
    done = [record for record in row.tried if record]
    pruned = sum(record["status"] == "pruned" for record in done)
    budget = f"{len(done)} of {len(row.tried)}" if len(done) < len(row.tried) else str(len(done))
    budget += f", {pruned} pruned" if pruned else ""
    chosen = row.chosen
    settings = " ".join(f"{key}={value}" for key, value in _short(chosen["point"]).items()) if chosen else ""
    val = f"{100 * chosen['val']['acc']:.2f}" if chosen else ""
    p = f"{gain.p:.2g}" if gain and gain.p is not None else ""
    holm_p = f"{corrected:.2g}" if p and corrected is not None else ""
    cells = [row.method.name, budget, settings, val, _spread(row), _difference(gain), p, holm_p, verdict]
    return f"| {' | '.join(cells)} |"


def _short(point: dict[str, str]) -> dict[str, str]:
    """Settings by the last words of their names, numbers with three digits."""
    return {key.rpartition(".")[2]: _rounded(value) for key, value in point.items()}


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def _verdict(gain: Paired | None, corrected: float | None) -> str:
    if gain is None:
        return MISSING
    if gain.p is None or corrected is None:
        return gain.verdict
    if corrected >= 1 - CONFIDENCE:
        return "not significant"
    return "better" if gain.mean > 0 else "worse"


def _spread(row: Row, epoch: str = "best") -> str:
    values = [*row.accuracies(epoch).values()]
    if not row.is_whole:
        return row.lacks()
    if len(values) < 2:
        return row.diverged().strip()
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}{row.diverged()}"


def _difference(gain: Paired | None) -> str:
    if gain is None:
        return ""
    low_high = f" ({gain.interval[0]:+.2f} to {gain.interval[1]:+.2f})" if gain.interval else ""
    return f"{gain.mean:+.2f}{low_high}"


def _published(rows: Sequence[Row]) -> str:
    control, *others = rows
    gains = {row.method.name: row.gain(control) for row in others}
    means = [gain.mean for gain in gains.values() if gain]
    above = sum(mean > 0 for mean in means)
    order = sorted(others, key=lambda row: -gain.mean if (gain := gains[row.method.name]) else float("inf"))
    table = "\n".join(_published_row(row, gains.get(row.method.name)) for row in [control, *order])
    rest = f", {len(others) - len(means)} are {MISSING}" if len(means) < len(others) else ""
    return f"""### The others, at their published settings

The control has the same recipe. Of the {len(others)} methods {above} have a higher mean than it,
{len(means) - above} have not{rest}. With three seeds, and so many methods, nothing is tested here. Warm-ups
are as long a part of the training as they are of the published one.

| method | settings | test | the same, last epoch | difference |
| --- | --- | --- | --- | --- |
{table}"""


def _published_row(row: Row, gain: Paired | None) -> str:
    last = _spread(row, "last") if row.is_whole else ""
    cells = [row.method.name, f"`{' '.join(row.method.settings)}`", _spread(row), last, _difference(gain)]
    return f"| {' | '.join(cells)} |"
