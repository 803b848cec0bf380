"""One job = one clean process state: Hydra, its sweeps, Lightning's child ranks, signals, failures, exit codes."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from kdexp import results
from kdexp.config import check, one_line

log = logging.getLogger(__name__)
traceback_log = logging.getLogger("kdexp.traceback")

FAILED, WRONG_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # the last two as shells count signals


def program(entry: Callable[[], None]) -> None:
    """Run a Hydra entry point from the command line; end with one line and an exit code on a wrong setting."""
    full_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing; what is printed is up to us
    logging.raiseExceptions = False  # a log file on a full disk must not fill the console too
    try:
        _continue_run()
        entry()
    except (HydraException, ConfigCompositionException, OmegaConfBaseException, ValueError, FileNotFoundError) as error:
        if full_traceback:
            raise
        leave(WRONG_INPUT, one_line(error))
    except KeyboardInterrupt:
        leave(INTERRUPTED, "interrupted")


def leave(code: int, message: str) -> NoReturn:
    """End the process with one line on stderr."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _continue_run() -> None:
    """``resume=DIR``: run in that folder, and leave the composed configuration there alone."""
    given = [argument for argument in sys.argv[1:] if argument.startswith("resume=")]
    if not given or given[-1] == "resume=null" or rank() != 0:  # a child rank is told its folder
        return
    others = [a for a in sys.argv[1:] if a not in given and not a.startswith("-")]
    if others:
        raise ValueError(f"resume takes every setting from the run and must stand alone, got {' '.join(others)}")
    folder = Path(given[-1].removeprefix("resume=").strip("'\"")).absolute()
    results.read(folder, "resume")
    sys.argv += [f'hydra.run.dir="{folder}"', "hydra.output_subdir=null"]


def rank() -> int:
    """This process's rank among those that run one job together: launched by Lightning, torchrun or SLURM."""
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0)


def meet() -> None:
    """Wait for the other ranks of this job, if there are any."""
    if "torch.distributed" in sys.modules:
        distributed = sys.modules["torch.distributed"]
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()


def job(config: DictConfig, run: Callable[[DictConfig], Mapping[str, Any]]) -> float | None:
    """Run one job of Hydra's, alone or in a sweep, in a process state of its own.

    Returns:
        The best validation accuracy, for sweepers that search; None when the job failed in a sweep. A job that fails
        alone ends the process; in a sweep the next job runs, and `Sweep` reports the failure at the end.
    """
    hydra = HydraConfig.get()
    sweeping = hydra.mode == RunMode.MULTIRUN
    if rank() != 0:
        logging.getLogger("kdexp").setLevel(logging.WARNING)  # rank 0 speaks for all
    with _own_state():
        if sweeping:
            config.sweep_dir = hydra.sweep.dir
            log.info("job %s: %s", hydra.job.num, " ".join(hydra.overrides.task))
            _pin_current_job()
        try:
            done = run(config)
        except Exception as error:
            message = _explain(error, f"{hydra.runtime.output_dir}/{hydra.job.name}.log")
            if not sweeping:
                leave(WRONG_INPUT if _is_wrong_input(error) else FAILED, message)
            print(f"error: {message}", file=sys.stderr)
            return None
        except (KeyboardInterrupt, SystemExit) as error:
            if results.status_of(error) != "interrupted" or rank() != 0:
                raise
            resume = results.argument("resume", Path(config.output_dir))
            stopped = isinstance(error, SystemExit) and error.code == TERMINATED
            leave(TERMINATED if stopped else INTERRUPTED, f"interrupted; continue with: kdexp-train {resume}")
    return float(done["metrics"]["val"]["best"]["acc"]) if done.get("metrics") else None


def _explain(error: Exception, log_file: str) -> str:
    status = results.status_of(error)
    traceback_log.error("%s", error, exc_info=error)
    if not (_is_wrong_input(error) or isinstance(error, OSError) or status != "failed"):
        log.error("unexpected failure", exc_info=error)  # ours: all that is known is shown
    return f"{one_line(error)}  [{status}; log: {log_file}]"


def _is_wrong_input(error: Exception) -> bool:
    # By name: Lightning's word for a setting that it refuses; importing it would cost the start-up.
    return isinstance(error, ValueError | FileNotFoundError) or type(error).__name__ == "MisconfigurationException"


@contextmanager
def _own_state() -> Iterator[None]:
    """Give back environment, arguments, signal handlers and process group as they were before the job.

    Lightning's launcher sets LOCAL_RANK and MASTER_* and leaves them; the next job of a sweep would take itself for a
    rank that somebody else started, and wait. They are restored, not removed: torchrun's and SLURM's must survive.
    """
    environment, arguments = dict(os.environ), list(sys.argv)
    interrupt = signal.getsignal(signal.SIGINT)  # Lightning ignores further Ctrl-C for good after the first
    terminate = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
        if "torch.distributed" in sys.modules:
            distributed = sys.modules["torch.distributed"]
            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = arguments
        gc.collect()


def _terminated(signum: int, frame: Any) -> NoReturn:
    sys.exit(128 + signum)


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


class Sweep(Callback):
    """What happens before the first and after the last job of a sweep.

    Hydra swallows exceptions of callbacks, so both ends speak through SystemExit.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check every job's configuration, so that a wrong value is refused before job 0."""
        loader = GlobalHydra.instance().config_loader()
        try:
            for overrides in _jobs(config):
                check(loader.load_sweep_config(config, overrides))
        except Exception as error:
            leave(WRONG_INPUT, one_line(error))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the comparison; exit with 1 when a job did not complete."""
        from kdexp.report.table import show_sweep  # here: it needs NumPy, which --help does not

        if not show_sweep(Path(config.hydra.sweep.dir)):
            sys.exit(FAILED)


def _jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of every job, as Hydra's basic sweeper expands them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    given = list(config.hydra.overrides.task)
    parameters = config.hydra.sweeper.get("params") or {}
    given += [f"{key}={value}" for key, value in parameters.items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    batches = BasicSweeper.split_arguments(parser.parse_overrides(given), None)
    return [list(job) for batch in batches for job in batch]
