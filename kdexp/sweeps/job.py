"""One job: its run, its failures, what it leaves."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from kdexp import recording, results, run_folder, signals
from kdexp.config.compose import one_line
from kdexp.config.exits import FAILED, WRONG_INPUT, leave
from kdexp.experiment.metadata import LAUNCH
from kdexp.experiment.ranks import leave_group, rank
from kdexp.metrics import monitor
from kdexp.results import Record
from kdexp.sweeps.pruning import pruner_of
from kdexp.sweeps.sweep import stop_file

log = logging.getLogger(__name__)
traceback_log = logging.getLogger("kdexp.traceback")


def value_of(record: Record) -> float | None:
    """What a sweeper that searches is told of a job: see `kdexp.sweeps.job_supervisor.job`."""
    if record.get("status") != "completed":
        return None
    chosen_by = record["epochs"].get("monitor")
    if chosen_by is None:  # an older kdexp's
        return float(record["metrics"]["val"]["best"]["acc"])
    value, _ = monitor.score({chosen_by: record["epochs"]["value"]}, chosen_by)
    return value


def run_job(one: "Job") -> Record:
    """Run one job in this process; when it fails, end the process with one line and an exit code."""
    folder, in_sweep = Path(one.config.output_dir), one.config.sweep_dir is not None
    if rank() != 0:
        logging.getLogger("kdexp").setLevel(logging.WARNING)  # rank 0 speaks for all
    signals.end_in_time(partial(last_word, [folder]), at_once=not in_sweep)
    before = _stamp(folder)
    holds_run = run_folder.holds_run(folder)
    try:
        return one.start()
    except BaseException as error:
        code = signals.interruption(error)
        if code is not None:
            _leave_interrupted(code, folder)
        if not isinstance(error, Exception):
            raise
        if results.status_of(error) == "pruned":
            log.info("%s", error)
            return {}
        is_refused = _is_wrong_input(error) and not in_sweep and rank() == 0
        # What was not begun leaves nothing, nor a word in the log of the run that was there before.
        if is_refused and (_stamp(folder) == before if holds_run else run_folder.remove_unbegun(folder)):
            leave(WRONG_INPUT, one_line(error))
        leave(WRONG_INPUT if _is_wrong_input(error) else FAILED, explain(error, folder / results.LOG))
    finally:
        leave_group()


def _stamp(folder: Path) -> int | None:
    """When results.json was last written; None where there is none."""
    with suppress(OSError):
        return (folder / results.FILE).stat().st_mtime_ns
    return None


def _leave_interrupted(code: int, folder: Path) -> NoReturn:
    if rank() != 0:
        sys.exit(code)
    leave(code, _how_to_resume(folder))


def last_word(folders: Sequence[Path], code: int) -> None:
    """What is left to do of `_leave_interrupted` when the main thread does not get there."""
    if rank() == 0:
        recording.last_word("interrupted", signals.reason(code))
        for folder in folders:
            print(f"error: {_how_to_resume(folder)}", file=sys.stderr, flush=True)


def _how_to_resume(folder: Path) -> str:
    if not (folder / results.FILE).is_file():
        return "interrupted before the run began"
    return f"interrupted; continue with: kdexp-train {results.argument('resume', folder)}"


def explain(error: Exception, log_file: Path) -> str:
    """One line that says how a job ended, and where its log is."""
    status = results.status_of(error)
    traceback_log.error("%s", error, exc_info=error)
    text = one_line(error)
    if text.startswith("DataLoader worker"):  # torch raises it wherever the run is when a worker process is killed
        text = f"dataset.num_workers: {text}"
    elif not (_is_wrong_input(error) or isinstance(error, OSError) or status != "failed"):
        log.error("unexpected failure", exc_info=error)  # ours: all that is known is shown
    return f"{text}  [{status}; log: {log_file}]"


def _is_wrong_input(error: Exception) -> bool:
    # By name: Lightning's word for a setting that it refuses; importing it would cost the start-up.
    return isinstance(error, ValueError | FileNotFoundError) or type(error).__name__ == "MisconfigurationException"


@dataclass(frozen=True)
class Job:
    """A job of a sweep, ready to be run.

    Attributes:
        run: what runs it.
        program: the module of the program that it is a job of.
        config: its configuration.
        hydra: Hydra's own.
        folder: the run folder.
        environment: the variables of its process.
        fusion_key: what it has in common with jobs that it can share a process with; None: nothing.
    """

    run: Callable[..., Record]
    program: str
    config: DictConfig
    hydra: DictConfig
    folder: Path
    environment: Mapping[str, str]
    fusion_key: str | None

    def start(self, **more: object) -> Record:
        """Run it; with more than its configuration and its pruner."""
        return self.run(self.config, pruner=pruner_of(self.config.sweep_dir), **more)

    @property
    def launch(self) -> str:
        """Which launch of the sweep it belongs to."""
        return self.environment.get(LAUNCH, "")

    def is_to_stop(self) -> bool:
        """Whether this launch of the sweep has been told to stop."""
        return stop_file(Path(self.config.sweep_dir), self.launch).exists()

    def is_left_alone(self) -> bool:
        """Whether it is not to be started: another launch is at it, or all are to stop."""
        return (rank() == 0 and results.is_in_use(self.folder)) or self.is_to_stop()

    def has_ended(self) -> bool:
        """Whether it is done, or got in this launch to an end that it could tell of itself."""
        found = results.read_or_nothing(self.folder)
        ended = found.get("status") not in (None, "running", "killed") and found.get("launch") == self.launch
        return found.get("status") == "completed" or ended

    def value(self) -> float | None:
        """See `job`."""
        return value_of(results.read_or_nothing(self.folder))
