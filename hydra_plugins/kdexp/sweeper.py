"""Hydra's grid of values as a sweep that finishes, resumes and compares."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kdexp.config.compose import plain, release_data
from kdexp.config.identity import Identity, fingerprint, without_run_only
from kdexp.config.require import Values
from kdexp.experiment.check import check, check_values
from kdexp.experiment.metadata import LAUNCH
from kdexp.progress_log import IMPORTING, said_meanwhile
from kdexp.sweeps import launch, subprocess_runner
from kdexp.sweeps.changed_data import marked_stale
from kdexp.sweeps.names import name_job, name_sweep
from kdexp.sweeps.sweep import Job, Sweep, placed

if TYPE_CHECKING:
    from kdexp.sweeps.progress import Progress

_ROUNDS = 3


class Sweeper(BasicSweeper):
    """Runs every combination of the swept values once, on any launcher, and what was completed before not again.

    Each grid is Hydra's own; a sweep may be several. Its folder is found again by what is fixed and what is swept,
    whatever the values.

    Args:
        max_batch_size: how many jobs a launcher is given at a time; None: all.
        params: what is swept, and fixed, in every grid: name -> values.
        grids: what each grid has besides; where it has a name of params, in its place. What is typed overrules both.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        grids: Sequence[Values] = (),
    ) -> None:
        super().__init__(max_batch_size, params)
        self._grids = list(grids) or [{}]
        self._controls: set[str] = set()  # keys of the jobs whose student is trained alone

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Name the sweep's folder, before a launcher is made that writes to it."""
        parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self._grids = self._grids_beside(config.hydra.overrides.task)
        self._given = []
        for grid in self._grids:
            words = [f"{key}={value}" for key, value in {**self.params, **grid}.items()]
            given = parser.parse_overrides([*words, *config.hydra.overrides.task])
            self._given.append({override.get_key_element(): override for override in given})
        with read_write(config), open_dict(config):
            written: Any = OmegaConf.to_container(config, resolve=False)
            dataset = config.hydra.runtime.choices.dataset
            name = config.sweep_name or self._name(written, dataset, is_quick=config.quick)
            config.sweep_name = f"quick_{name}" if config.quick else name
            config.hydra.sweep.dir = str(Path(config.hydra.sweep.dir).absolute())
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={_quoted(config.hydra.sweep.dir)}")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _name(self, written: Values, dataset: str, *, is_quick: bool) -> str:
        """The sweep's own name: of the data set, of what is swept, and a digest of what is fixed, as it is written."""
        swept = [key.lstrip("+~") for key in self._swept()]
        fixed = without_run_only(written)
        del fixed["hydra"]
        if not is_quick:  # sweeps that were begun before there was such a setting have none
            del fixed["quick"]
        own = {key for grid in self._grids for key in (*self.params, *grid)}
        lines = [
            o.input_line
            for given in self._given
            for o in given.values()
            if not o.is_sweep_override() and o.key_or_group in own
        ]
        lines = list(dict.fromkeys(lines))
        identity = fingerprint([fixed, sorted(swept), lines, *self._rules()])
        return name_sweep(dataset, swept, identity)

    def _grids_beside(self, typed: Sequence[str]) -> list[Values]:
        """The grids, beside what is typed."""
        return self._grids

    def _rules(self) -> list[Values]:
        """What makes it another sweep besides what is fixed and what is swept."""
        return []

    def _swept(self) -> list[str]:
        """What takes several values, in a grid or from one to the next."""
        words: dict[str, set[str | None]] = {}
        for given in self._given:
            for key in {key: None for each in self._given for key in each}:
                words.setdefault(key, set()).add(given[key].input_line if key in given else None)
        several = {key for given in self._given for key, override in given.items() if override.is_sweep_override()}
        return [key for key, lines in words.items() if key in several or len(lines) > 1]

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs that are not completed, print the comparison, and exit with 1 when a job did not complete.

        Raises:
            ValueError: a setting of one of the jobs breaks a rule; none was started.
        """
        assert self.config is not None
        if any(key == "output_dir" for given in self._given for key in given):
            raise ValueError(
                "output_dir must be left to a sweep, which has a folder for each job in hydra.sweep.dir, "
                f"got {self.config.output_dir}"
            )
        folder = Path(self.config.hydra.sweep.dir)
        launch.begin(folder, is_quick=self.config.quick)
        with said_meanwhile(f"checking the settings of the jobs, and {IMPORTING} for it"):
            sweep, progress = self._begin(folder)
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        launch.run(
            sweep,
            progress,
            self._work,
            self._show_end,
            launcher=type(self.launcher).__name__,
            tracking=plain(self.config.tracking),
        )

    def _begin(self, folder: Path) -> tuple[Sweep, "Progress"]:
        from kdexp.sweeps.progress import (
            Progress,
            command_line,  # here: shell completion needs no tables
        )

        assert self.config is not None
        cells, configs = self._jobs()
        jobs = placed(folder, list(configs))
        if self.config.rerun != "all":
            jobs = marked_stale(folder, jobs, list(configs.values()))
        same = f" ({cells} combinations, {cells - len(jobs)} duplicates skipped)" if cells > len(jobs) else ""
        opening = f"sweep {folder}: {len(jobs)} job{'s' * (len(jobs) != 1)}{same}"
        jobs = self._at_first(jobs)
        sweep = Sweep(folder, jobs, command_line(sys.argv))
        if self.config.rerun == "all":
            sweep.set_aside()
        return sweep, Progress(folder, opening)

    def _at_first(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that the sweep begins with."""
        return jobs

    def _show_end(self, sweep: Sweep) -> None:
        launch.show_end(sweep)

    def _work(self, sweep: Sweep, stop: launch.Stop) -> None:
        # Again, for jobs that another launch was at, and that it left when it was stopped or killed.
        for _ in range(_ROUNDS):
            if not stop.number:
                self._launch(sweep)
                sweep.wait(for_others=True)

    def _launch(self, sweep: Sweep) -> None:
        assert self.launcher is not None
        jobs = [
            [
                *state.job.overrides,
                f"hydra.sweep.subdir={_quoted(state.job.folder)}",  # 875e9038 would be a number
                f"+hydra.job.env_set.{LAUNCH}={sweep.launch}",
                *self._more(state.job),
            ]
            # Controls first, so that what is compared with them can say its gain when it ends.
            for state in sorted(sweep.states(), key=lambda state: state.job.key not in self._controls)
            if sweep.is_to_run(state)
        ]
        size = self.max_batch_size or max(len(jobs), 1)
        for start in range(0, len(jobs), size):
            for done in self.launcher.launch(jobs[start : start + size], initial_job_idx=start):
                _ = done.return_value  # raises what a job could not be started for

    def _more(self, job: Job) -> list[str]:
        """What a job is told besides what it is."""
        return []

    def _jobs(self) -> tuple[int, dict[Job, DictConfig]]:
        """How many combinations there are, and the jobs that they come to, with their configurations."""
        from kdexp.sweeps.progress import composing  # here: shell completion needs no tables

        swept = self._swept()
        cells = [cell for given in self._given for cell in self.split_arguments(list(given.values()), None)[0]]
        jobs: dict[str, tuple[Job, DictConfig]] = {}  # by what they compute
        configs = []
        for cell in map(_felt, composing(cells)):
            configs.append(self._compose(cell))
            job = self._job(cell, swept, plain(configs[-1]))
            jobs.setdefault(job.key, (job, configs[-1]))
        release_data(samples_only=True)  # each job loads its own
        self._check_all(configs)
        return len(cells), dict(jobs.values())

    def _check_all(self, configs: Sequence[DictConfig]) -> None:
        """Check configurations.

        Raises:
            ValueError: a setting breaks a rule.
        """
        subprocess_runner.check_all(check, configs)

    def _compose(self, cell: Sequence[str]) -> DictConfig:
        """The configuration of a job, but for its folder.

        Raises:
            ValueError: see `check_values`: this is known at once, the rest when the packages are imported.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(cell))
        HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
        with read_write(config), open_dict(config):
            del config["hydra"]
            config.output_dir = "."  # not known yet
            OmegaConf.resolve(config)
        HydraConfig.instance().cfg = None
        check_values(config)
        return config

    def _job(self, cell: Sequence[str], named: Sequence[str], values: Values) -> Job:
        """The job of a combination of values, named after these settings, which not every grid of a sweep has."""
        typed = dict(override.split("=", 1) for override in cell)
        identity = Identity(values)
        name = name_job(
            values,
            {key: typed.get(key, "") for key in named},
            is_control=identity.is_control,
            fingerprint=identity.fingerprint,
        )
        trainer = values["trainer"]
        epochs = trainer["max_epochs"] if trainer["max_steps"] is None else None
        job = Job(tuple(cell), name, identity.key, epochs)
        if identity.is_control:
            self._controls.add(job.key)
        return job


def _felt(cell: Sequence[str]) -> list[str]:
    """The overrides of a combination; of a control without those that would make it none, which are for the others."""
    is_control = "distillation=control" in cell
    return [word for word in cell if not (is_control and word.lstrip("+~").startswith(_TAUGHT))]


_TAUGHT = ("alpha=", "alpha_schedule.", "feature_loss=", "feature_loss.", "feature_loss@")


def _quoted(text: str) -> str:
    """For Hydra's grammar."""
    return "'" + text.replace("'", "\\'") + "'"
