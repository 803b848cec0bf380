"""What a job's own process does."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from omegaconf import open_dict, read_write

from kdexp import results, run_folder, signals
from kdexp.config.exits import PlainRecord
from kdexp.config.require import Values
from kdexp.config.untrusted import stored
from kdexp.experiment.ranks import rank
from kdexp.sweeps.gpus import spread_over_gpus
from kdexp.sweeps.job import Job, explain, last_word, run_job, traceback_log

log = logging.getLogger(__name__)


def run_in_child(one: Job) -> None:
    """Run one job as the only one of this process."""
    from kdexp.experiment.tracking import warm_up  # here: the process that waits does without it

    if rank() == 0:
        warm_up(one.config.tracking)
    _set_up(one)
    spread_over_gpus(one.config.trainer)
    _pin_current_job()
    # What Lightning starts its child ranks with: `python -m` this module, whoever's main program this process has.
    sys.modules["__main__"] = import_module(one.program)
    run_job(one)


def run_fused_in_child(jobs: Sequence[Job], settings: Values) -> None:
    """Run several jobs in this process; each has its own log."""
    from kdexp.sweeps.shared_experiment import run_together

    signals.end_in_time(partial(last_word, [one.folder for one in jobs]), at_once=False)
    _set_up(jobs[0])
    spread_over_gpus(jobs[0].config.trainer)
    for logger in (logging.getLogger(), traceback_log):
        (before,) = logger.handlers
        logger.removeHandler(before)
        for one in jobs:
            handler = logging.FileHandler(one.folder / results.LOG)
            handler.setFormatter(before.formatter)
            handler.addFilter(partial(_is_of, one.folder))
            logger.addHandler(handler)
    run_together([partial(_run_fused, one) for one in jobs], **settings)


def track_gains_in_child(late: Mapping[Path, Path], tracking: Values) -> None:
    """See `kdexp.sweeps.job_supervisor.track_gains`."""
    from kdexp.experiment.run_tracking import track_gain

    for folder, place in late.items():
        with suppress(ValueError), run_folder.alone(folder):  # in use: another launch does it
            saved, control = results.read(folder, "sweep"), results.read(place, "control")
            if saved["tracking"]["control"] is None:
                stored(saved["config"])  # raises what is wrong with it
                track_gain(tracking, folder, saved, control)
                saved["tracking"]["control"] = control["wandb_id"]
                results.write(folder, saved)


_running: ContextVar[Path] = ContextVar("_running")
"""The folder of the job that runs now, of those in this process; each has a context of its own. Unset: of none."""


def _is_of(folder: Path, record: logging.LogRecord) -> bool:
    return _running.get(folder) == folder  # what none of them says is for all


def _run_fused(one: Job, make: Callable[..., object]) -> None:
    _running.set(one.folder)
    if one.is_left_alone():
        return
    HydraConfig.instance().cfg = one.hydra  # type: ignore[assignment]
    os.environ.update(one.hydra.hydra.job.env_set)  # which trial it is
    try:
        one.start(make=make)
    except (Exception, SystemExit) as error:
        code = signals.interruption(error)
        if code is not None:
            raise signals.Terminated(code) from error
        if results.status_of(error) == "pruned":
            log.info("%s", error)
        elif isinstance(error, Exception):
            log.error("error: %s", explain(error, one.folder / results.LOG))


def _set_up(one: Job) -> None:
    logging.setLogRecordFactory(PlainRecord)
    setup_globals()
    HydraConfig.instance().cfg = one.hydra  # type: ignore[assignment]
    hydra = one.hydra.hydra
    configure_log(hydra.job_logging, hydra.verbose)
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)  # what is printed goes to the same file


def _pin_current_job() -> None:
    """Make sys.argv and HydraConfig describe this job alone.

    Lightning starts its child ranks by repeating sys.argv, and with ``-m`` in it every child would run the whole sweep
    again, in the folder of a single run (https://github.com/Lightning-AI/pytorch-lightning/issues/11300).
    """
    hydra = HydraConfig.get()
    extra = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    assert hydra.job.config_name is not None
    sys.argv[1:] = [
        "--config-name",
        hydra.job.config_name,
        *(f"--config-dir={path}" for path in extra),
        *hydra.overrides.task,
        "hydra.mode=RUN",
    ]
    whole: Any = HydraConfig.instance().cfg
    with read_write(whole.hydra), open_dict(whole.hydra):
        whole.hydra.run.dir = hydra.runtime.output_dir
