"""Hydra's grid of values as a sweep that finishes, resumes and compares."""

import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from kdexp import child, launch, results
from kdexp.config import RUN_ONLY, check, fingerprint, is_control, plain, run_fingerprint, run_key
from kdexp.sweep import Job, Sweep, name_job, name_sweep

_ROUNDS = 3


class Sweeper(BasicSweeper):
    """Runs every combination of the swept values once, on any launcher, and what was completed before not again.

    The grid is Hydra's own. The sweep's folder is found again by what is fixed and what is swept, whatever the values.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Name the sweep's folder, before a launcher is made that writes to it."""
        parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        given = parser.parse_overrides([*self._parse_config(), *config.hydra.overrides.task])
        self._given = list({override.get_key_element(): override for override in given}.values())
        with read_write(config), open_dict(config):
            config.sweep_name = config.sweep_name or self._name(config)
            config.hydra.sweep.dir = str(Path(config.hydra.sweep.dir).absolute())
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={_quoted(config.hydra.sweep.dir)}")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _name(self, config: DictConfig) -> str:
        swept = [o.get_key_element().lstrip("+~") for o in self._given if o.is_sweep_override()]
        fixed: Any = OmegaConf.to_container(config, resolve=False)
        fixed = {key: value for key, value in fixed.items() if key not in ("hydra", *RUN_ONLY)}
        params = [o.input_line for o in self._given if not o.is_sweep_override() and o.key_or_group in self.params]
        return name_sweep(config.hydra.runtime.choices.dataset, swept, fingerprint([fixed, sorted(swept), params]))

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs that are not completed, print the comparison, and exit with 1 when a job did not complete.

        Raises:
            ValueError: a setting of one of the jobs breaks a rule; none was started.
        """
        from kdexp.report.progress import Progress, command_line, show_end  # here: shell completion needs no tables

        assert self.config is not None
        assert self.launcher is not None
        if launch.rank() != 0:
            raise ValueError("a sweep must be started by one process: kdexp starts the ranks of each job itself")
        child.warm_up()  # while the configurations are composed
        cells, jobs = self._jobs()
        sweep = Sweep(Path(self.config.hydra.sweep.dir), jobs, command_line(sys.argv))
        OmegaConf.save(self.config, sweep.folder / "multirun.yaml")
        if self.config.rerun == "all":
            for state in sweep.states():
                if state.status not in ("waiting", "running"):
                    results.set_aside(sweep.folder / state.job.folder)
        stopped: KeyboardInterrupt | SystemExit | None = None
        with Progress(sweep.folder, cells) as progress, sweep.watched(progress.show):
            try:
                # Again, for jobs that another launch was at, and that it left when it was stopped or killed.
                for _ in range(_ROUNDS):
                    self._launch(sweep)
                    sweep.wait(for_others=True)
            except Exception as error:  # of the launcher's; those of jobs do not come here
                print(f"error: {type(self.launcher).__name__}: {error}", file=sys.stderr)
            except (KeyboardInterrupt, SystemExit) as error:
                stopped = error
                sweep.request_stop()
                sweep.wait(for_others=False)
        states = sweep.states()
        show_end(sweep.folder, states, sweep.command)
        if stopped is not None:
            launch.leave(launch.TERMINATED if isinstance(stopped, SystemExit) else launch.INTERRUPTED, "interrupted")
        if any(state.status != "completed" for state in states):
            sys.exit(launch.FAILED)

    def _launch(self, sweep: Sweep) -> None:
        assert self.launcher is not None
        jobs = [
            [
                *state.job.overrides,
                f"hydra.sweep.subdir={state.job.folder}",
                f"+hydra.job.env_set.{launch.LAUNCH}={sweep.launch}",
            ]
            for state in sweep.states()
            if sweep.is_to_run(state)
        ]
        size = self.max_batch_size or max(len(jobs), 1)
        for start in range(0, len(jobs), size):
            for done in self.launcher.launch(jobs[start : start + size], initial_job_idx=start):
                _ = done.return_value  # raises what a job could not be started for

    def _jobs(self) -> tuple[int, list[Job]]:
        """How many combinations there are, and the jobs that they come to."""
        assert self.config is not None
        assert self.hydra_context is not None
        swept = {override.get_key_element() for override in self._given if override.is_sweep_override()}
        (cells,) = self.split_arguments(self._given, None)
        jobs: dict[str, Job] = {}
        configs = []
        for cell in cells:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(cell))
            HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
            with read_write(config), open_dict(config):
                del config["hydra"]
                config.output_dir = "."  # not known yet
            configs.append(config)
            values = plain(config)
            typed = dict(override.split("=", 1) for override in cell)
            name = name_job(
                values,
                {key: typed[key] for key in typed if key in swept},
                is_control=is_control(values),
                fingerprint=run_fingerprint(values),
            )
            jobs.setdefault(name, Job(tuple(cell), name, run_key(values), values["trainer"]["max_epochs"]))
        HydraConfig.instance().cfg = None
        child.check_all(check, configs)
        return len(cells), list(jobs.values())


def _quoted(text: str) -> str:
    """For Hydra's grammar."""
    return "'" + text.replace("'", "\\'") + "'"
