"""``+sweep=budget``: a sweep over a family of students, of those that fit a budget of bytes and milliseconds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig

from hydra_plugins.kdexp.sweeper import Sweeper
from kdexp import run_folder
from kdexp.config.compose import plain
from kdexp.config.require import Values
from kdexp.naming import counted
from kdexp.report.budget import FILE, UNITS, Budget, amount, key_of, read, write
from kdexp.sweeps import launch, subprocess_runner
from kdexp.sweeps.halving import Halving, environment
from kdexp.sweeps.sweep import Job, Sweep


class BudgetSweeper(Sweeper):
    """Measures the students of a family, leaves out those that are over the budget, and trains the rest.

    Args:
        max_batch_size: see `hydra_plugins.kdexp.sweeper.Sweeper`.
        params: likewise.
        grids: the family.
        others: settings of another sweeper, which are refused.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        grids: Sequence[Values] = (),
        **others: object,
    ) -> None:
        super().__init__(max_batch_size, params, grids)
        self._others = others
        self._configs: Mapping[Job, DictConfig] = {}  # of the jobs whose student fits
        self._halving: Halving | None = None

    def _grids_beside(self, typed: Sequence[str]) -> list[Values]:
        """See `Sweeper._grids_beside`: a student that is typed stands in the place of the family.

        Raises:
            ValueError: what writes and runs ONNX files is not installed, or another sweeper is chosen.
        """
        if self._others:
            raise ValueError("hydra/sweeper must be left to +sweep=budget (budget.halving=true searches), got search")
        if any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
            raise ValueError("+sweep=budget needs what is not installed: pip install 'kdexp[export]'")
        return [{}] if any(override.startswith("student=") for override in typed) else self._grids

    def _jobs(self) -> tuple[int, dict[Job, DictConfig]]:
        """See `Sweeper._jobs`: those whose student fits.

        Raises:
            ValueError: none does; then no folder is left that was not there.
        """
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        is_new = not folder.exists()
        try:
            return self._fitting(folder)
        except ValueError:
            if is_new and folder.exists():
                run_folder.remove(folder)
            raise

    def _fitting(self, folder: Path) -> tuple[int, dict[Job, DictConfig]]:
        cells, configs = super()._jobs()
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{FILE}.lock"):
            budget, keys = self._measured(folder, configs)
        left_out = {key: reasons for key in budget.family if (reasons := budget.reasons(budget.students[key]))}
        for key, reasons in left_out.items():
            print(f"left out      {budget.students[key].name}: {reasons}")
        if len(left_out) == len(budget.family):
            of = [budget.students[key] for key in budget.family]
            limits = " and ".join(f"budget.{unit}={most:g}" for unit, most in budget.limits.items())
            least = ", ".join(f"{amount(min(one.of(unit) for one in of), unit)} at least" for unit in budget.limits)
            raise ValueError(f"{limits} must leave a student to train, got a family that takes {least}")
        kept = {job: config for job, config in configs.items() if keys[job] not in left_out}
        self._configs = kept
        return cells - (len(configs) - len(kept)), kept

    def _measured(self, folder: Path, configs: Mapping[Job, DictConfig]) -> tuple[Budget, Mapping[Job, str]]:
        """What budget.json says, after what it did not say was measured; and what each job's student is there."""
        assert self.config is not None
        wanted = self.config.budget
        keys = {job: key_of(plain(config.student), wanted.threads) for job, config in configs.items()}
        try:
            known = read(folder)
        except ValueError:  # there is none, or it is damaged
            known = Budget({}, None, [], {}, {})
        if self.config.rerun == "all":
            known = replace(known, students={}, teachers={}, behind={})
        of_now = {name: one for name, one in known.teachers.items() if one.threads == wanted.threads}
        limits = {unit: float(wanted[unit]) for unit in UNITS if wanted[unit] is not None}
        behind = known.behind if wanted.halving else {}  # until it is known anew: another launch may show it now
        write(folder, Budget(limits, wanted.robustness, [], known.students, of_now, behind))
        students = {
            keys[job]: (self._student(job, config.choices.student), False, config) for job, config in configs.items()
        }
        networks = [network for key, network in students.items() if key not in known.students]
        if networks:
            from kdexp.sweeps.budget import Unmeasured, measure  # here: the next launch has nothing to measure

            taught = {
                config.choices.teacher: config for job, config in configs.items() if job.key not in self._controls
            }
            teachers = [(name, True, config) for name, config in taught.items() if name not in of_now]
            what = [counted(len(networks), "student"), *([counted(len(teachers), "teacher")] if teachers else [])]
            threads = counted(wanted.threads, "thread")
            print(f"measuring     {' and '.join(what)} as ONNX files, {threads}", flush=True)
            networks += teachers
            subprocess_runner.check_all(partial(measure, folder), [Unmeasured(*network) for network in networks])
        budget = replace(read(folder), family=list(students))
        write(folder, budget)
        return budget, keys

    def _student(self, job: Job, option: str) -> str:
        """What tells a student from the others of the family: ``cnn width=4``."""
        swept = {key for given in self._given for key, override in given.items() if override.is_sweep_override()}
        typed = (override.partition("=") for override in job.overrides)
        words = [
            f"{key.partition('.')[2]}={value}" for key, _, value in typed if key in swept and key.startswith("student.")
        ]
        return " ".join([option, *words])

    def _at_first(self, jobs: list[Job]) -> list[Job]:
        """See `Sweeper._at_first`: of a halving its trials."""
        assert self.config is not None
        if not self.config.budget.halving:
            return jobs
        values = {job.key: plain(config) for job, config in self._configs.items()}
        self._halving = Halving(Path(self.config.hydra.sweep.dir), jobs, values)
        count = counted(len(self._halving.trials), "trial")
        print(f"halving       {count}, of which the better half goes on, three times; then their seeds and controls")
        return self._halving.trials

    def _more(self, job: Job) -> list[str]:
        """See `Sweeper._more`: of a trial of a halving how far it goes."""
        return [] if job.part is None else [environment(job.part)]

    def _work(self, sweep: Sweep, stop: launch.Stop) -> None:
        """See `Sweeper._work`: of a halving one stage after the other."""
        assert self.config is not None
        afresh = self.config.rerun == "all"
        for stage in [sweep] if self._halving is None else self._halving.stages(sweep, afresh=afresh):
            super()._work(stage, stop)
            if stop.number:
                return

    def _show_end(self, sweep: Sweep) -> None:
        from kdexp.report.budget_terminal import show_budget

        names = {state.job.folder for state in sweep.states() if state.job.trial is None}
        launch.show_end(sweep, names, lambda: show_budget(sweep.folder, names))
