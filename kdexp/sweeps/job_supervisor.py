"""The jobs of a sweep: started, each in a process of its own or several in one; watched; and what their ends mean."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdexp import recording, results
from kdexp.config.compose import plain
from kdexp.config.require import Values
from kdexp.experiment.ranks import rank
from kdexp.results import Record
from kdexp.sweeps import subprocess_runner
from kdexp.sweeps.fusion import fusion_key
from kdexp.sweeps.job import Job, run_job, value_of
from kdexp.sweeps.supervised_job import run_fused_in_child, run_in_child, track_gains_in_child


def job(config: DictConfig, run: Callable[..., Record], program: str) -> float | None:
    """Run one job of Hydra's: alone in this process, or as one of a sweep in a process of its own.

    Args:
        config: its configuration.
        run: what runs it.
        program: the module of the program, by which Lightning starts the job's other ranks (``python -m``).

    Returns:
        For sweepers that search: the metric that chose the best epoch, in that epoch; one of which lower is better with
        its sign changed, so that more always is. None when the job of a sweep did not complete. A job that fails alone
        ends the process.
    """
    hydra = HydraConfig.get()
    # Without the types of its parts: Hydra's search for plugins loads theirs anew, and pickle takes that amiss.
    whole: Any = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
    key = fusion_key(plain(config)) if _collected is not None else None
    one = Job(run, program, config, whole, Path(hydra.runtime.output_dir), dict(os.environ), key)
    if hydra.mode != RunMode.MULTIRUN:
        return value_of(run_job(one))
    config.sweep_dir = hydra.sweep.dir
    if one.is_left_alone():
        return None
    if _collected is not None:
        _collected.append(one)
        return None
    _supervise([one])
    return one.value() if rank() == 0 else None


_collected: list[Job] | None = None


@contextmanager
def collect_jobs() -> Iterator[list[Job]]:
    """Meanwhile the jobs of a sweep are only made ready, for `run_collected`."""
    global _collected
    jobs = _collected = []
    try:
        yield jobs
    finally:
        _collected = None


def run_collected(jobs: Sequence[Job], **settings: object) -> dict[str, float | None]:
    """Run jobs of a sweep, those of them in one process that can share what they need.

    When that process dies, each of its jobs goes on in one of its own: so that what ends a process, as memory that runs
    out, ends one job alone after all.

    Args:
        jobs: from `collect_jobs`.
        settings: see `kdexp.sweeps.shared_experiment.run_together`; for several jobs alone.

    Returns:
        Run folder -> see `job`.
    """
    groups: dict[str, list[Job]] = {}
    for one in jobs:
        groups.setdefault(one.fusion_key or str(one.folder), []).append(one)
    for group in groups.values():
        left = _supervise(group, settings) if len(group) > 1 else group
        for one in left:
            if not one.is_left_alone():
                _supervise([one])
    return {str(one.folder): one.value() for one in jobs}


def _supervise(jobs: Sequence[Job], settings: Values | None = None) -> list[Job]:
    """Run jobs in a process of their own, and see to it that their end is known.

    This process stays light: neither it nor the launcher's other jobs feel what becomes of them.

    Returns:
        Those that were not run, or that ended with the process.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # A Ctrl-C in the terminal reaches a launcher's workers, too; it is the launching process that stops them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = jobs[0]
    log_file = first.folder / results.LOG
    target, arguments = (run_in_child, (first,)) if len(jobs) == 1 else (run_fused_in_child, (jobs, settings))
    code = subprocess_runner.run(target, arguments, log_file, first.environment, first.is_to_stop)
    if rank() != 0:
        return []
    left = [one for one in jobs if not one.has_ended()]
    for one in left:
        if one.is_to_stop():
            recording.mark_dead(one.folder, "interrupted", "stopped before it could record that")
        elif code < 0:
            name = signal.Signals(-code).name
            hint = " (what the system does when memory runs out)" if name == "SIGKILL" else ""
            recording.mark_dead(one.folder, "killed", f"killed by {name}{hint}")
        else:
            error = f"the job's process exited with code {code} without reporting an error"
            recording.mark_dead(one.folder, "failed", error)
    if len(jobs) == 1 and not (first.folder / results.FILE).is_file() and not first.is_to_stop():
        error = f"a job's process exited with code {code} before its run started"
        print(f"error: {error}; log: {log_file}", file=sys.stderr)
    return left


def track_gains(late: Mapping[Path, Path], tracking: Values, log_file: Path) -> None:
    """Add to the trackers of finished runs what they gained over their controls, which were not done then.

    Args:
        late: folder of a run -> of its control.
        tracking: conf/tracking, as it was typed now.
        log_file: gets what is said; it is done in a process that has imported what it needs.
    """
    subprocess_runner.run(track_gains_in_child, (late, tracking), log_file, dict(os.environ), lambda: False)
