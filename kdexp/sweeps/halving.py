"""Successive halving over a family of students: all train a part of the way, and the better half of them continues.

The rule is that of Jamieson and Talwalkar (AISTATS 2016), with a rate of two. A trial resumes from its checkpoint, and
all are judged together, so the choice depends neither on the order of the runs nor on how many run at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from kdexp import results
from kdexp.config.identity import Identity
from kdexp.config.require import Values
from kdexp.metrics.monitor import best_epoch
from kdexp.report import budget, glossary
from kdexp.report.comparison import order_of_choice
from kdexp.report.runs import Run
from kdexp.sweeps.pruning import PART, epochs_of, planned_epochs
from kdexp.sweeps.sweep import Job, Sweep

PARTS = (0.25, 0.5, 1.0)
"""Of the training, after which the better half is chosen."""
SHARES = (1.0, 0.5)
"""Of the budget, for each of which there is a student to take, and so a better half."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A student and how it is distilled, whatever the seed.

    Attributes:
        student: see `kdexp.report.budget.key_of`.
        taken: what its network takes.
        jobs: of its seeds; the first is its trial, which decides whether the others are run.
    """

    student: str
    taken: budget.Taken
    jobs: Sequence[Job]


class Halving:
    """The jobs of a sweep over a family of students, most of which are run only if their student does not fall behind.

    Args:
        folder: of the sweep, with budget.json.
        jobs: of all students that fit, in their folders.
        values: their configurations, plain, by the jobs' keys.

    Attributes:
        trials: the jobs to begin with: the first part of the first seed of each distilled student.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], values: Mapping[str, Values]) -> None:
        self._budget = budget.read(folder)
        self._family = {job.key: Identity(values[job.key]).control_fingerprint for job in jobs}
        self._controls = [job for job in jobs if Identity(values[job.key]).is_control]
        seeds: dict[tuple[str, ...], list[Job]] = {}
        for job in jobs:
            if job not in self._controls:
                seeds.setdefault(tuple(word for word in job.overrides if not word.startswith("seed=")), []).append(job)
        self._candidates = []
        for number, (first, *more) in enumerate(seeds.values()):
            own = values[first.key]
            key = budget.key_of(own["student"], own["budget"]["threads"])
            trial = replace(first, trial=number, part=PARTS[0])
            self._candidates.append(Candidate(key, self._budget.students[key], [trial, *more]))
        self.trials = [one.jobs[0] for one in self._candidates]

    def stages(self, sweep: Sweep, *, afresh: bool) -> Iterator[Sweep]:
        """The jobs of each stage, which are to be run before the next stage is taken.

        First the trials, part by part; then those that are left are measured on test, run with their other seeds, and
        beside their controls. Who fell behind is noted in budget.json before that.

        Args:
            sweep: of the trials; it is told of the jobs that follow.
            afresh: whether what was run by an earlier launch is set aside.
        """
        left, behind = self._candidates, dict[str, str]()
        for part in PARTS:
            trials = [replace(one.jobs[0], part=part) for one in left]
            stage = Sweep(sweep.folder, trials, sweep.command, sweep.launch)
            sweep.recall({trial.folder for trial in self.trials})
            yield stage
            judged = self._judged(stage, left, part)
            left = [one for one, how in judged.items() if not how]
            behind |= {one.student: how for one, how in judged.items() if how}
        for one in left:
            behind.pop(one.student, None)  # with other settings of the loss it is ahead
        with FileLock(sweep.folder / f".{budget.FILE}.lock"):
            budget.write(sweep.folder, replace(budget.read(sweep.folder), behind=behind))
        families = {self._family[job.key] for one in left for job in one.jobs}
        more = [job for one in left for job in one.jobs[1:]]
        more += [job for job in self._controls if self._family[job.key] in families]
        if afresh:
            Sweep(sweep.folder, more, sweep.command, sweep.launch).set_aside()
        tested = [replace(one.jobs[0], trial=None, part=None) for one in left]
        last = Sweep(sweep.folder, [*tested, *more], sweep.command, sweep.launch)
        sweep.recall({job.folder for job in (*self.trials, *more)})
        yield last

    def _judged(self, stage: Sweep, candidates: Sequence[Candidate], part: float) -> dict[Candidate, str]:
        """How those fell behind whose trials have done a part of their training; an empty text of those that did not.

        One stays that is in the better half, rounded up, of those that fit the budget, or of those that fit half of it.
        What a trial did after that part, in an earlier launch or now in another one, makes no difference.
        """
        found, orders = dict[Candidate, str](), dict[Candidate, tuple[float, float]]()
        status = {state.job.folder: state.status for state in stage.states()}
        for one in candidates:
            name = one.jobs[0].folder
            run = Run(stage.folder / name, results.read_or_nothing(stage.folder / name), status[name])
            done = epochs_of(part, planned_epochs(run.results))
            if run.status != "waiting" and 0 < done <= (run.epochs[-1]["epoch"] + 1 if run.epochs else 0):
                orders[one] = _best(run, done)
                found[one] = f"behind after epoch {done}"
            elif run.status == "diverged":
                found[one] = "diverged"
        for share in SHARES:
            able = sorted(
                (one for one in orders if not self._budget.over(one.taken, share)), key=lambda one: orders[one]
            )
            found |= dict.fromkeys(able[: (len(able) + 1) // 2], "")
        return found


def environment(part: float) -> str:
    """What a trial is told, as an override of Hydra's.

    Args:
        part: of its training that it is to do.
    """
    return f"+hydra.job.env_set.{PART}='{part}'"


def _best(run: Run, done: int) -> tuple[float, float]:
    """The order of a run by that of its first epochs which would be its best one."""
    best = best_epoch([row for row in run.epochs if row["epoch"] < done], run.results["epochs"]["monitor"])
    less = glossary.known(run.measure).lower_is_better
    return order_of_choice(best.get(f"val/{run.measure}"), best.get("val/nll"), less_is_better=less)
