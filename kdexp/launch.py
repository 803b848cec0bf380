"""One job = one clean process state: Hydra, its sweeps, Lightning's child ranks, signals, failures, exit codes."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kdexp import __version__, child, loader, monitor, quick, results, signals
from kdexp.config import (
    anchored,
    code_version,
    control_fingerprint,
    fusion_key,
    is_attacked,
    is_control,
    one_line,
    plain,
    run_fingerprint,
    run_key,
    teacher_files,
)
from kdexp.foreign import check_folder, printable, stored
from kdexp.sweep import stop_file

log = logging.getLogger(__name__)
traceback_log = logging.getLogger("kdexp.traceback")

FAILED, WRONG_INPUT = 1, 2  # exit codes
_WRONG = (HydraException, ConfigCompositionException, OmegaConfBaseException, YAMLError, ValueError, OSError)
LAUNCH = "KDEXP_LAUNCH"  # environment variable: which launch of a sweep a job belongs to
TRIAL = "KDEXP_TRIAL"  # environment variable: which trial of a search a job is, by its id in the study


def program(entry: Callable[[], None]) -> None:
    """Run a Hydra entry point from the command line; end with one line and an exit code on a wrong setting."""
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        print(f"kdexp {__version__}")
        return
    full_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing; what is printed is up to us
    logging.raiseExceptions = False  # a log file on a full disk must not fill the console too
    _open_closed_streams()
    logging.setLogRecordFactory(_PlainRecord)
    loader.install()
    with signals.obeyed():
        try:
            _arrange_arguments()
            _continue_run()
            entry()
        except _WRONG as error:
            if full_traceback or signals.interruption(error) is not None:
                raise
            leave(WRONG_INPUT, one_line(error))


def _open_closed_streams() -> None:
    """After ``>&-``: what is printed goes nowhere, and no other file becomes the standard output."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process lives)


class _PlainRecord(logging.LogRecord):
    """What is logged, and so printed: names and errors in it may come from files."""

    def getMessage(self) -> str:
        """The message."""
        return printable(super().getMessage())


def leave(code: int, message: str) -> NoReturn:
    """End the process with one line on stderr."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _arrange_arguments() -> None:
    """Put the settings behind the flags: Hydra's parser wants them side by side.

    Raises:
        ValueError: a flag that does not exist, which may be a setting that was typed with dashes.
    """
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word[:1] == "~" or ("=" in word and word[:1] != "-"))
    _, rest = get_args_parser().parse_known_args(sys.argv[1:])
    unknown = [word for word in rest if word[:1] == "-"]  # settings may be left behind a word such as `build`
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise ValueError(f"there is no flag {unknown[0]}; a setting is typed without dashes: {name}=VALUE")


def run_in_output_dir() -> None:
    """``output_dir=DIR`` alone: Hydra's log and configuration belong there, too."""
    typed = [word for word in sys.argv[1:] if word.startswith(("output_dir=", "hydra.run.dir="))]
    if typed and typed[-1].startswith("output_dir=") and not {"-m", "--multirun"} & set(sys.argv):
        sys.argv.append(f"hydra.run.dir={typed[-1].removeprefix('output_dir=')}")


def _continue_run() -> None:
    """``resume=DIR``: run in that folder, and leave the composed configuration there alone."""
    given = [argument for argument in sys.argv[1:] if argument.startswith("resume=")]
    if not given or given[-1] == "resume=null" or rank() != 0:  # a child rank is told its folder
        return
    beside = ("-", "tracking=", "tracking.", "data_dir=", "store_dir=")  # where, and not what
    others = [a for a in sys.argv[1:] if a not in given and not a.startswith(beside)]
    if others:
        rule = "takes every setting but data_dir, store_dir and tracking from the run and must stand alone"
        raise ValueError(f"resume {rule}, got {' '.join(others)}")
    folder = Path(given[-1].removeprefix("resume=").strip("'\"")).absolute()
    results.read(folder, "resume")
    check_folder(folder, "resume")  # before Hydra opens the log there
    sys.argv += [f'hydra.run.dir="{folder}"', "hydra.output_subdir=null"]


def facts(values: Mapping[str, Any], overrides: Sequence[str], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run before it begins, for results.json.

    Args:
        values: its configuration, as `kdexp.config.plain` gives it.
        overrides: what was typed.
        earlier: the results of the run that is continued, or nothing.
    """
    chosen_by, _ = monitor.rule(values["trainer"].get("monitor"), values["dataset"], attacked=is_attacked(values))
    return {
        "choices": values["choices"],
        "overrides": overrides,
        "alpha": values["alpha"],
        "temperature": values["temperature"],
        "seed": values["seed"],
        "fingerprint": run_fingerprint(values),
        "code_version": code_version(),
        "key": run_key(values),
        "launch": os.environ.get(LAUNCH),
        "control_fingerprint": control_fingerprint(values),
        "is_control": is_control(values),
        "epochs": {"monitor": chosen_by},
        "wandb_id": earlier.get("wandb_id", os.urandom(4).hex()),
        "data_content": earlier.get("data_content"),
        "teacher_files": teacher_files(values),
        **({"note": quick.NOTE} if values.get("quick") else {}),
        "config": anchored(values),
    }


def rank() -> int:
    """This process's rank among those that run one job together: launched by Lightning, torchrun or SLURM."""
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0)


def trial() -> int | None:
    """Which trial of a search this job is, by its id in the study; None of any other job."""
    return int(os.environ[TRIAL]) if TRIAL in os.environ else None


def meet() -> None:
    """Wait for the other ranks of this job, if there are any."""
    if "torch.distributed" in sys.modules:
        distributed = sys.modules["torch.distributed"]
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()


def job(config: DictConfig, run: Callable[[DictConfig], Mapping[str, Any]]) -> float | None:
    """Run one job of Hydra's: alone in this process, or as one of a sweep in a process of its own.

    Returns:
        For sweepers that search: the metric that chose the best epoch, in that epoch; one of which less is better with
        its sign changed, so that more always is. None when the job of a sweep did not complete. A job that fails alone
        ends the process.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return _in_sweep(config, run)
    return _value(_run(config, run))


def _value(record: Mapping[str, Any]) -> float | None:
    if record.get("status") != "completed":
        return None
    chosen_by = record["epochs"].get("monitor")
    if chosen_by is None:  # an older kdexp's
        return float(record["metrics"]["val"]["best"]["acc"])
    value, _ = monitor.score({chosen_by: record["epochs"]["value"]}, chosen_by)
    return value


def _run(config: DictConfig, run: Callable[[DictConfig], Mapping[str, Any]]) -> Mapping[str, Any]:
    folder = Path(config.output_dir)
    if rank() != 0:
        logging.getLogger("kdexp").setLevel(logging.WARNING)  # rank 0 speaks for all
    signals.end_in_time(partial(_last_word, [folder]), at_once=config.sweep_dir is None)
    before = _stamp(folder)
    holds_run = results.holds_run(folder)
    try:
        return run(config)
    except BaseException as error:
        code = signals.interruption(error)
        if code is not None:
            _leave_interrupted(code, folder)
        if not isinstance(error, Exception):
            raise
        if results.status_of(error) == "pruned":
            log.info("%s", error)
            return {}
        is_refused = _is_wrong_input(error) and config.sweep_dir is None and rank() == 0
        # What was not begun leaves nothing, nor a word in the log of the run that was there before.
        if is_refused and (_stamp(folder) == before if holds_run else results.remove_unbegun(folder)):
            leave(WRONG_INPUT, one_line(error))
        leave(WRONG_INPUT if _is_wrong_input(error) else FAILED, _explain(error, folder / results.LOG))
    finally:
        _leave_group()


def _stamp(folder: Path) -> int | None:
    """When results.json was last written; None where there is none."""
    with suppress(OSError):
        return (folder / results.FILE).stat().st_mtime_ns
    return None


def _leave_interrupted(code: int, folder: Path) -> NoReturn:
    if rank() != 0:
        sys.exit(code)
    leave(code, _how_to_resume(folder))


def _last_word(folders: Sequence[Path], code: int) -> None:
    """What is left to do of `_leave_interrupted` when the main thread does not get there."""
    if rank() == 0:
        results.last_word("interrupted", signals.reason(code))
        for folder in folders:
            print(f"error: {_how_to_resume(folder)}", file=sys.stderr, flush=True)


def _how_to_resume(folder: Path) -> str:
    if not (folder / results.FILE).is_file():
        return "interrupted before the run began"
    return f"interrupted; continue with: kdexp-train {results.argument('resume', folder)}"


def _explain(error: Exception, log_file: Path) -> str:
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


def _leave_group() -> None:
    if "torch.distributed" in sys.modules:
        distributed = sys.modules["torch.distributed"]
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


@dataclass(frozen=True)
class _Job:
    """A job of a sweep, ready to be run.

    Attributes:
        run: what runs it.
        config: its configuration.
        hydra: Hydra's own.
        folder: the run folder.
        environment: the variables of its process.
        fusion_key: what it has in common with jobs that it can share a process with; None: nothing.
    """

    run: Callable[..., Mapping[str, Any]]
    config: DictConfig
    hydra: DictConfig
    folder: Path
    environment: Mapping[str, str]
    fusion_key: str | None

    @property
    def launch(self) -> str:
        """Which launch of the sweep it belongs to."""
        return self.environment.get(LAUNCH, "")

    def is_to_stop(self) -> bool:
        return stop_file(Path(self.config.sweep_dir), self.launch).exists()

    def is_left_alone(self) -> bool:
        """Whether it is not to be started: another launch is at it, or all are to stop."""
        return (rank() == 0 and results.is_in_use(self.folder)) or self.is_to_stop()

    def has_ended(self) -> bool:
        """Whether it is done, or got in this launch to an end that it could tell of itself."""
        found = self._results()
        ended = found.get("status") not in (None, "running", "killed") and found.get("launch") == self.launch
        return found.get("status") == "completed" or ended

    def value(self) -> float | None:
        """See `job`."""
        return _value(self._results())

    def _results(self) -> Mapping[str, Any]:
        """Its results; nothing where there are none, or the file is damaged: then it said so, and is failed."""
        try:
            return results.read(self.folder, "sweep")
        except ValueError:
            return {}


_gathered: list[_Job] | None = None


@contextmanager
def gathered() -> Iterator[list[_Job]]:
    """Meanwhile the jobs of a sweep are only made ready, for `run_gathered`."""
    global _gathered
    jobs = _gathered = []
    try:
        yield jobs
    finally:
        _gathered = None


def run_gathered(jobs: Sequence[_Job], **settings: Any) -> dict[str, float | None]:
    """Run jobs of a sweep, those of them in one process that can share what they need.

    When that process dies, each of its jobs goes on in one of its own: so that what ends a process, as memory that runs
    out, ends one job alone after all.

    Args:
        jobs: from `gathered`.
        settings: see `kdexp.fused.run_together`; for several jobs alone.

    Returns:
        Run folder -> see `job`.
    """
    groups: dict[str, list[_Job]] = {}
    for one in jobs:
        groups.setdefault(one.fusion_key or str(one.folder), []).append(one)
    for group in groups.values():
        left = _supervise(group, settings) if len(group) > 1 else group
        for one in left:
            if not one.is_left_alone():
                _supervise([one])
    return {str(one.folder): one.value() for one in jobs}


def _in_sweep(config: DictConfig, run: Callable[..., Mapping[str, Any]]) -> float | None:
    """Run a job of a sweep in a process of its own, on whatever launcher."""
    hydra = HydraConfig.get()
    config.sweep_dir = hydra.sweep.dir
    # Without the types of its parts: Hydra's search for plugins loads theirs anew, and pickle takes that amiss.
    whole: Any = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
    key = fusion_key(plain(config)) if _gathered is not None else None
    one = _Job(run, config, whole, Path(hydra.runtime.output_dir), dict(os.environ), key)
    if one.is_left_alone():
        return None
    if _gathered is not None:
        _gathered.append(one)
        return None
    _supervise([one])
    return one.value() if rank() == 0 else None


def _supervise(jobs: Sequence[_Job], settings: Mapping[str, Any] | None = None) -> list[_Job]:
    """Run jobs in a process of their own, and see to it that their end is known.

    This process stays light: neither it nor the launcher's other jobs feel what becomes of them.

    Returns:
        Those that were not run, or that ended with the process.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # A Ctrl-C in the terminal reaches a launcher's workers, too; it is the launching process that asks to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = jobs[0]
    log_file = first.folder / results.LOG
    target, arguments = (_run_in_child, (first,)) if len(jobs) == 1 else (_run_fused_in_child, (jobs, settings))
    code = child.run(target, arguments, log_file, first.environment, first.is_to_stop)
    if rank() != 0:
        return []
    left = [one for one in jobs if not one.has_ended()]
    for one in left:
        if one.is_to_stop():
            results.note_death(one.folder, "interrupted", "stopped before it could say so")
        elif code < 0:
            name = signal.Signals(-code).name
            hint = " (the system's answer when memory runs out)" if name == "SIGKILL" else ""
            results.note_death(one.folder, "killed", f"killed by {name}{hint}")
        else:
            results.note_death(one.folder, "failed", f"its process ended with exit code {code} and no word")
    if len(jobs) == 1 and not (first.folder / results.FILE).is_file() and not first.is_to_stop():
        print(f"error: a job ended before it began, with exit code {code}; log: {log_file}", file=sys.stderr)
    return left


def _run_in_child(one: _Job) -> None:
    from kdexp.tracking import warm_up  # here: the process that waits does without it

    if rank() == 0:
        warm_up(one.config.tracking)
    _set_up(one)
    _spread_over_gpus(one.config.trainer)
    _pin_current_job()
    # What Lightning starts its child ranks with: `python -m` this module, whoever's main program this process has.
    sys.modules["__main__"] = sys.modules[one.run.__module__]
    _run(one.config, one.run)


def _run_fused_in_child(jobs: Sequence[_Job], settings: Mapping[str, Any]) -> None:
    from kdexp.fused import run_together

    signals.end_in_time(partial(_last_word, [one.folder for one in jobs]), at_once=False)
    _set_up(jobs[0])
    _spread_over_gpus(jobs[0].config.trainer)
    for logger in (logging.getLogger(), traceback_log):
        (before,) = logger.handlers
        logger.removeHandler(before)
        for one in jobs:
            handler = logging.FileHandler(one.folder / results.LOG)
            handler.setFormatter(before.formatter)
            handler.addFilter(partial(_is_of, one.folder))
            logger.addHandler(handler)
    run_together([partial(_run_fused, one) for one in jobs], **settings)


def track_gains(late: Mapping[Path, Path], tracking: Mapping[str, Any], log_file: Path) -> None:
    """Add to the trackers of finished runs what they gained over their controls, which were not done then.

    Args:
        late: folder of a run -> of its control.
        tracking: conf/tracking, as it was typed now.
        log_file: gets what is said; it is done in a process that has imported what it needs.
    """
    child.run(_track_gains_in_child, (late, tracking), log_file, dict(os.environ), lambda: False)


def _track_gains_in_child(late: Mapping[Path, Path], tracking: Mapping[str, Any]) -> None:
    from kdexp.experiment import track_gain

    for folder, place in late.items():
        with suppress(ValueError), results.alone(folder):  # in use: another launch does it
            saved, control = results.read(folder, "sweep"), results.read(place, "control")
            if saved["tracking"]["control"] is None:
                config = OmegaConf.create(stored(saved["config"]) | {"tracking": dict(tracking)})
                track_gain(config, folder, saved, control)
                saved["tracking"]["control"] = control["wandb_id"]
                results.write(folder, saved)


_running: ContextVar[Path] = ContextVar("_running")
"""The folder of the job that runs now, of those in this process; each has a context of its own. Unset: of none."""


def _is_of(folder: Path, record: logging.LogRecord) -> bool:
    return _running.get(folder) == folder  # what none of them says is for all


def _run_fused(one: _Job, parts: Any) -> None:
    _running.set(one.folder)
    if one.is_left_alone():
        return
    HydraConfig.instance().cfg = one.hydra  # type: ignore[assignment]
    os.environ.update(one.hydra.hydra.job.env_set)  # which trial it is, which it asks as it begins
    try:
        one.run(one.config, parts)
    except (Exception, SystemExit) as error:
        code = signals.interruption(error)
        if code is not None:
            raise signals.Terminated(code) from error
        if results.status_of(error) == "pruned":
            log.info("%s", error)
        elif isinstance(error, Exception):
            log.error("error: %s", _explain(error, one.folder / results.LOG))


def _set_up(one: _Job) -> None:
    logging.setLogRecordFactory(_PlainRecord)
    setup_globals()
    HydraConfig.instance().cfg = one.hydra  # type: ignore[assignment]
    hydra = one.hydra.hydra
    configure_log(hydra.job_logging, hydra.verbose)
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)  # what is printed goes to the same file


def _spread_over_gpus(trainer: Any) -> None:
    """Several jobs on a machine with several GPUs: let each see as many as it uses, and those that are least used."""
    started_by_another = (
        any(name in os.environ for name in ("RANK", "LOCAL_RANK")) or int(os.environ.get("SLURM_NTASKS", 1)) > 1
    )
    if trainer.accelerator == "cpu" or not isinstance(trainer.devices, int) or started_by_another:
        return
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    if trainer.devices < len(visible):
        folder = Path(tempfile.gettempdir(), f"kdexp-gpus-{os.getuid()}")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(child.take_gpus(trainer.devices, visible, folder))


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
