"""A search over Hydra's intervals, ranges and choices: each trial a job of the sweep, the next one by what came out."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.kdexp.sweeper import Sweeper
from kdexp import results
from kdexp.config.compose import plain
from kdexp.config.require import Values, is_count
from kdexp.report.runs import Run, command_of
from kdexp.sweeps.changed_data import refuse_other_data
from kdexp.sweeps.launch import Stop
from kdexp.sweeps.pruning import TRIAL
from kdexp.sweeps.sweep import Job, Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from kdexp.sweeps.optuna_study import Study, Trial
    from kdexp.sweeps.progress import Progress

_LOOK_SECONDS = 1.0


class Search(Sweeper):
    """Tries points of a space, prunes what falls behind on val, and measures on test the one that val chooses.

    The control gets the same care: as many trials of its own, over those settings of the space that it feels.

    Args:
        max_batch_size: trials that are taken from the study, and given to the launcher, at a time.
        params: the space, besides what the command line says.
        n_trials: how many a study is to have, those of earlier and simultaneous launches included.
        metric: on val, that pruning and the choice go by; auto: that which the task's runs are compared by.
        pruner: one of `kdexp.sweeps.optuna_study.PRUNERS`.
        seed: of the suggestions.
        final_seeds: with which the best trial and its control are run; the runs' own unless given.
        grids: must be empty: a search has one space.
    """

    def __init__(
        self,
        max_batch_size: int,
        params: dict[str, str],
        n_trials: int,
        metric: str,
        pruner: str,
        seed: int,
        final_seeds: list[int] | None,
        grids: Sequence[Values] = (),
    ) -> None:
        super().__init__(max_batch_size, params)
        self.batch, self.grids = max_batch_size, grids
        self.n_trials, self.final_seeds = n_trials, final_seeds
        self.metric, self.pruner, self.seed = metric, pruner, seed
        self._study: Study
        self._of_control: Study | None = None  # None until the student's is done, or where there is nothing to search
        self._fixed: dict[str, str] = {}  # what the control's trials have of the student's best one
        self._ids: dict[str, int] = {}  # of trials in the study, by their run folders
        self._last: dict[str, Job] = {}  # the jobs of the best trial and its control, by their run folders

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the search's own settings, and name its folder.

        Raises:
            ValueError: one of them breaks a rule, or Optuna is not installed.
        """
        if find_spec("optuna") is None:
            raise ValueError("hydra/sweeper=search needs what is not installed: pip install 'kdexp[search]'")
        from kdexp.sweeps.optuna_study import PRUNERS, SETTINGS

        _require(is_count(self.batch), "max_batch_size", "must be at least 1", self.batch)
        _require(is_count(self.n_trials), "n_trials", "must be at least 1", self.n_trials)
        _require(self.metric in SETTINGS, "metric", f"must be one of {', '.join(SETTINGS)}", self.metric)
        _require(self.pruner in PRUNERS, "pruner", f"must be one of {', '.join(PRUNERS)}", self.pruner)
        _require(not self.grids, "grids", "must be empty in a search", self.grids)
        several = self.final_seeds if isinstance(self.final_seeds, Sequence) else []
        are_seeds = several and all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in several)
        rule = "must be null or at least one seed in [0, 2^63)"
        _require(self.final_seeds is None or are_seeds, "final_seeds", rule, self.final_seeds)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _rules(self) -> list[Values]:
        from kdexp.sweeps.optuna_study import describe

        return [describe(self._space(), metric=self.metric, pruner=self.pruner, seed=self.seed)]

    def _space(self) -> dict[str, "BaseDistribution"]:
        (given,) = self._given
        swept = {key: override for key, override in given.items() if override.is_sweep_override()}
        if not swept:
            raise ValueError("a search needs a setting with several values, as alpha='interval(0,1)', got none")
        if "seed" in swept:
            raise ValueError(
                "seed must be one in a search, which would choose the luckiest; the best trial is run "
                f"with hydra.sweeper.final_seeds, got {swept['seed'].input_line}"
            )
        return {key: distribution_of(override) for key, override in swept.items()}

    def _begin(self, folder: Path) -> tuple[Sweep, "Progress"]:
        from kdexp.sweeps import optuna_study
        from kdexp.sweeps.progress import Progress, command_line

        assert self.config is not None
        space = self._space()
        config = self._check_ends(space)
        self.metric, known = optuna_study.metric(self.metric, plain(config)), optuna_study.METRICS
        _require(self.metric in known, "metric", f"must be one of {', '.join(known)}", self.metric)
        sweep = Sweep(folder, [], command_line(sys.argv))
        if self.config.rerun == "all":
            optuna_study.set_aside(folder)
            sweep.recall()
            sweep.set_aside()
        self._study = self._new_study(folder, space)
        self._alone = optuna_study.of_recipe(space)
        if sum(trial.status in ("completed", "pruned") for trial in self._study.trials()) >= self.n_trials:
            self._begin_control(folder)
        self._recall(sweep)
        refuse_other_data(sweep, plain(config))
        opening = f"search {folder}: {self.n_trials} trials over {', '.join(space)}"
        opening += f", then as many of the control over {', '.join(self._alone)}" if self._alone else ""
        return sweep, Progress(folder, opening, self._to_come)

    def _begin_control(self, folder: Path) -> None:
        """Find or begin the control's study: of the best trial's network and data, and the recipes in the space."""
        best = self._study.best()
        if self._alone and best:
            self._fixed = {key: value for key, value in best[0].point.items() if key not in self._alone}
            self._of_control = self._new_study(folder, self._alone, self._fixed)

    def _new_study(
        self, folder: Path, space: Mapping[str, "BaseDistribution"], control_of: Mapping[str, str] | None = None
    ) -> "Study":
        from kdexp.sweeps.optuna_study import Study

        return Study(folder, space, metric=self.metric, pruner=self.pruner, seed=self.seed, control_of=control_of)

    def _studies(self) -> list["Study"]:
        return [self._study, *([self._of_control] if self._of_control else [])]

    def _to_come(self) -> int:
        """Trials that are not begun."""
        studies = [self._study, self._of_control] if self._alone else [self._study]
        return sum(max(self.n_trials - (len(s.trials()) if s else 0), 0) for s in studies)

    def _check_ends(self, space: Mapping[str, "BaseDistribution"]) -> DictConfig:
        """Check the space where its corners are, one setting after the other; the configuration at the first."""
        from kdexp.sweeps.optuna_study import ends

        values = {key: ends(distribution) for key, distribution in space.items()}
        least = {key: own[0] for key, own in values.items()}
        points = [least] + [least | {key: value} for key, own in values.items() for value in own[1:]]
        configs = [self._compose(self._cell(point)) for point in points]
        self._check_all(configs)
        return configs[0]

    def _cell(self, point: Mapping[str, str], *, alone: bool = False) -> list[str]:
        """The overrides that were given, with the values of a point, or those of its control."""
        (given,) = self._given
        values = {
            key: "" if override.is_sweep_override() else override.get_value_element_as_str()
            for key, override in given.items()
            if key in point or not override.is_sweep_override()
        }
        values |= point
        if alone:
            distilled = ("feature_loss", "scheme")
            values = {key: value for key, value in values.items() if key.lstrip("+").split(".")[0] not in distilled}
            values |= _ALONE
        return [f"{key}={value}" for key, value in values.items()]

    def _job_at(self, point: Mapping[str, str], *, alone: bool = False) -> Job:
        cell = self._cell(point, alone=alone)
        typed = [override.partition("=")[0] for override in cell]
        return self._job(cell, [key for key in typed if key in {*point, "alpha", "seed"}], plain(self._compose(cell)))

    def _more(self, job: Job) -> list[str]:
        return [] if job.trial is None else [f"+hydra.job.env_set.{TRIAL}={self._ids[job.folder]}"]

    def _work(self, sweep: Sweep, stop: Stop) -> None:
        self._finish(self._study, sweep, stop)
        if not stop.number:
            self._begin_control(sweep.folder)
        if self._of_control is not None:
            self._finish(self._of_control, sweep, stop)
        if not stop.number:
            self._measure(sweep, stop)

    def _finish(self, study: "Study", sweep: Sweep, stop: Stop) -> None:
        with study.worker(sweep.launch):
            while not stop.number:
                trials = study.ask(self.batch, self.n_trials, sweep.launch)
                if trials:
                    self._try(study, trials, sweep, stop)
                elif study.are_others_at_it(sweep.launch):  # who may leave theirs to us
                    time.sleep(_LOOK_SECONDS)
                    self._recall(sweep)
                else:
                    break

    def _try(self, study: "Study", trials: Sequence["Trial"], sweep: Sweep, stop: Stop) -> None:
        jobs = [replace(self._job_of(study, trial), trial=trial.number) for trial in trials]
        for trial, job in zip(trials, jobs, strict=True):
            study.place(trial, job.folder)
            self._ids[job.folder] = trial.id
        self._run(jobs, sweep, stop)
        states = {state.job.folder: state for state in sweep.states()}
        for trial, job in zip(trials, jobs, strict=True):
            status, folder = states[job.folder].status, sweep.folder / job.folder
            if status in ("completed", "pruned", "diverged"):
                run = Run(folder, results.read(folder, "sweep"), status)
                metrics = run.results["metrics"]["val"]["best"] if run.completed else None
                study.tell(trial, run.epochs, metrics)
            elif not stop.number:
                study.give_up(trial)

    def _job_of(self, study: "Study", trial: "Trial", seed: Mapping[str, str] | None = None) -> Job:
        """The job of a trial, with its own seed or another one."""
        if study is self._of_control:
            return self._job_at({**self._fixed, **trial.point, **(seed or {})}, alone=True)
        return self._job_at({**trial.point, **(seed or {})})

    def _measure(self, sweep: Sweep, stop: Stop) -> None:
        """Measure the best trial on test, and the control: its own best trial, else that with the student's recipe."""
        assert self.config is not None
        best = self._study.best()
        if not best:
            return
        alone = self._of_control.best() if self._of_control is not None else []
        tuned = {
            "trials": len(self._study.trials()),
            "settings": [*self._space()],
            "control_trials": len(self._of_control.trials()) if self._of_control is not None else 0,
            "control_settings": [key.lstrip("+") for key in self._alone],
        }
        for number in self.final_seeds or [self.config.seed]:
            seed = {} if number == self.config.seed else {"seed": str(number)}
            own = self._job_of(self._study, best[0], seed)
            if alone and self._of_control is not None:
                control = self._job_of(self._of_control, alone[0], seed)
            else:
                control = self._job_at({**best[0].point, **seed}, alone=True)
            for job in (own, control):
                self._last[job.folder] = replace(job, tuned=tuned)
        self._run(list(self._last.values()), sweep, stop)

    def _run(self, jobs: Sequence[Job], sweep: Sweep, stop: Stop) -> None:
        some = Sweep(sweep.folder, jobs, sweep.command, sweep.launch)
        self._recall(sweep)
        super()._work(some, stop)

    def _recall(self, sweep: Sweep) -> None:
        trials = (trial for study in self._studies() for trial in study.trials())
        sweep.recall({*(trial.folder for trial in trials if trial.folder), *self._last})

    def _show_end(self, sweep: Sweep) -> None:
        from kdexp.report.terminal import show_sweep
        from kdexp.sweeps.progress import show_left, show_trials

        best = self._study.best()
        show_trials(self._study.trials(), best, self.metric, self._study.importance())
        if (of_control := self._of_control) is not None:
            whose = " of the control"
            show_trials(of_control.trials(), of_control.best(), self.metric, of_control.importance(), whose)
        if self._last:
            show_sweep(sweep.folder, self._last)
            print(f"run it        {command_of(self._cell(best[0].point))}")
        show_left(sweep.folder, sweep.states(), sweep.command)


_ALONE = {"alpha": "1", "alpha_schedule.kind": "constant", "feature_loss": "[]"}
"""What makes a control of a point, whatever presets it has; besides, it has no scheme."""


def distribution_of(override: Override) -> "BaseDistribution":
    """The values that an interval, a range or a choice stands for."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, given, text = override.get_key_element(), override.value(), override.input_line
    if not isinstance(given, IntervalSweep | RangeSweep):
        choices = list(dict.fromkeys(override.sweep_string_iterator()))
        if not choices or getattr(given, "tags", None):
            raise ValueError(f"{key} must be at least one value, and an interval or a range if tagged, got {text}")
        return CategoricalDistribution(choices)
    if isinstance(given, RangeSweep):
        values = list(given.range())
        low, high, step = min(values, default=None), max(values, default=None), abs(given.step)
    else:
        low, high, step = given.start, given.end, None
    is_log = "log" in given.tags
    if given.tags - {"log"}:
        raise ValueError(f"{key} must be tagged log or not at all, got {text}")
    if low is None or high is None or low > high:
        raise ValueError(f"{key} must begin below its end, got {text}")
    if is_log and (low <= 0 or step not in (None, 1)):
        raise ValueError(f"{key} must begin above 0, and have no step but 1, to be tagged log, got {text}")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, step=int(step or 1), log=is_log)
    return FloatDistribution(low, high, step=step, log=is_log)


def _require(rule_holds: object, setting: str, rule: str, value: object) -> None:
    if not rule_holds:
        raise ValueError(f"hydra.sweeper.{setting} {rule}, got {value}")
