"""The robustness report of a finished run, or of each run of a sweep."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from kdexp.config.compose import plain
from kdexp.experiment.finished_run import FinishedRun, Machine
from kdexp.progress_log import importing
from kdexp.results import Record
from kdexp.robustness import configured
from kdexp.robustness.settings import of_axes

log = logging.getLogger(__name__)


def robustness(config: DictConfig) -> Iterator[tuple[Path, Record]]:
    """Evaluate the robustness of teacher, control and student of a run, or of each run of a sweep.

    Args:
        config: conf/eval.yaml, with robustness.

    Yields:
        Each run's folder and the content of its robustness.json, which has been written; last the sweep's.

    Raises:
        ValueError: a setting that makes no sense; no completed run; no control.
        FileNotFoundError: weights or data are gone.
    """
    run, sweep = (None if given == "" else given for given in (config.run, config.sweep_dir))
    if (run is None) == (sweep is None):
        raise ValueError(f"one of run and sweep must be given, got run={config.run} sweep={config.sweep_dir}")
    if config.control not in ("train", "find", "skip"):
        raise ValueError(f"control must be train, find or skip, got {config.control}")
    configured.check(plain(config.robustness))
    machine = Machine(config.accelerator, config.data_dir, config.store_dir)
    reports = _Reports(machine, config.robustness, config.control, in_sweep=sweep is not None)
    if run is not None:
        folder = Path(str(run))
        yield folder, reports.of_run(folder)
    else:
        yield from reports.of_sweep(Path(str(sweep)))


@dataclass(frozen=True)
class _Reports:
    """Makes the reports of finished runs.

    Attributes:
        machine: where they are evaluated.
        settings: conf/robustness.
        control: what becomes of a control that is not there: train, find or skip.
        in_sweep: whether the runs are of a sweep.
    """

    machine: Machine
    settings: object
    control: str
    in_sweep: bool

    def of_sweep(self, sweep: Path) -> Iterator[tuple[Path, Record]]:
        """Those of its runs, and at last what they say together."""
        from kdexp.report.comparison import of_sweep
        from kdexp.report.robustness import over_seeds  # here: --help must not wait for tables and figures
        from kdexp.report.robustness_json import write

        comparison = of_sweep(sweep)
        if not comparison.groups:
            raise ValueError(f"sweep must be a folder with completed runs in it, got {sweep}")
        groups = comparison.distilled or comparison.controls  # a control is measured with those it is for
        reports: dict[Path, Record] = {}
        for folder in (run.folder for group in groups for run in group.runs):
            log.info("%s", folder)
            reports[folder] = self.of_run(folder)
            yield folder, reports[folder]
        together = over_seeds(groups, reports)
        write(together, sweep)
        yield sweep, together

    def of_run(self, folder: Path) -> Record:
        """That of one run."""
        finished = FinishedRun(folder, self.machine, robustness=self.settings)
        experiment, device = finished.experiment, finished.device
        with importing():  # here: --help must not wait for torch
            from kdexp.experiment.compared_networks import subjects_of
            from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
            from kdexp.experiment.run_tracking import track_robustness

        with finished.building():
            finished.warn_of_other_data()
            evaluator = RobustnessEvaluator(experiment, device)
        _tell_what_is_left_out(folder, experiment.values["robustness"])
        report = evaluator.report(subjects_of(finished, self.control, in_sweep=self.in_sweep), folder)
        track_robustness(experiment.values["tracking"], folder, finished.results, report)
        return report


def _tell_what_is_left_out(folder: Path, settings: Mapping[str, object]) -> None:
    """Name what the report that is there has, and the one that takes its place will not have."""
    from kdexp.report.robustness_json import read

    with suppress(ValueError, AttributeError):  # none is there, or it is damaged
        now, before = (list(of_axes(own)) for own in (settings, read(folder).get("settings", {})))
        if left_out := [axis for axis in before if axis not in now]:
            every = ",".join([*before, *(axis for axis in now if axis not in before)])
            replaced = f"this report takes the place of one that has {', '.join(left_out)}, too"
            log.info("%s; robustness=[%s] has all, and measures only what is new", replaced, every)
