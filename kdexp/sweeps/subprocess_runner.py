"""A job in a process of its own: whatever ends it ends nothing else, and it outlives nobody who waits for it."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from kdexp import signals

T = TypeVar("T")

THREADS = "OMP_NUM_THREADS"  # environment variable: of a process
# Imported once, before the first job: jobs are then forked from a process that has them. Imports only, no work: a
# process that has started threads, or has been on a GPU, cannot be forked. (W&B imports its launch agent in each init.)
_HEAVY = ("kdexp.sweeps.preload", "wandb.sdk.launch")
_CONTEXT = multiprocessing.get_context("forkserver")
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 2 * signals.GRACE_SECONDS  # a job ends within half of it, see `signals.end_in_time`


def warm_up() -> None:
    """Start to import what jobs need, in the background."""
    _CONTEXT.set_forkserver_preload(list(_HEAVY))
    with _blocked():
        resource_tracker.ensure_running()  # which unblocks two of them
    with _blocked():
        forkserver.ensure_running()


@atexit.register
def _cool_down() -> None:
    """A process that ends, on a wrong setting say, leaves behind no other one that imports PyTorch for jobs to come.

    That would keep a core busy, and whoever reads what this one prints waiting.
    """
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if server is not None:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


@contextmanager
def _blocked() -> Iterator[None]:
    """Meanwhile processes are started that no signal to the process group ends: they end when this one does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_all(check: Callable[[T], None], configs: Sequence[T]) -> None:
    """Check configurations in a warm process, so that this one need not import what they name.

    Raises:
        ValueError: what the first of them breaks.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_check, args=(check, configs, sender))
    process.start()
    sender.close()
    try:
        error = receiver.recv()
        process.join(_PATIENCE_SECONDS)  # killed at once, it would leave semaphores behind, of which the end warns
    except EOFError:
        raise RuntimeError("the process that checks the configurations was killed") from None
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error


def _check(check: Callable[[T], None], configs: Sequence[T], answer: Connection) -> None:
    found = None
    try:
        for config in configs:
            check(config)
    except Exception as error:
        found = error
    with suppress(OSError):  # nobody waits for it any more
        answer.send(found)


def run(
    target: Callable[..., None],
    arguments: tuple[object, ...],
    log_file: Path,
    environment: Mapping[str, str],
    is_to_stop: Callable[[], bool],
) -> int:
    """Call a function in a process of its own and wait for its end. Several threads can do so at a time.

    When the process is to stop, or this one is interrupted, it gets SIGTERM and is waited for; when this one dies, it
    does the same by itself.

    Args:
        target: importable by name.
        arguments: can be pickled.
        log_file: gets what the process prints, from the first byte.
        environment: the process's variables, all of them.
        is_to_stop: called again and again.

    Returns:
        The exit code; -N when signal N ended the process.
    """
    with _bookkeeping:
        warm_up()
        process = _CONTEXT.Process(target=_begin, args=(target, arguments, log_file, environment))
        process.start()
    try:
        while not _has_ended(process, _LOOK_SECONDS) and not is_to_stop():
            pass
    finally:
        _end(process)
    assert process.exitcode is not None
    return process.exitcode


_bookkeeping = threading.Lock()
"""Of multiprocessing: it looks at all processes when it starts one, and can be told only once how one ended."""


def _has_ended(process: BaseProcess, seconds: float | None = None) -> bool:
    if not wait([process.sentinel], seconds):
        return False
    with _bookkeeping:
        process.join()
    return True


_in_a_hurry = threading.Event()


def hurry() -> None:
    """From now on processes that are to end are not waited for."""
    _in_a_hurry.set()


def _end(process: BaseProcess) -> None:
    try:
        if not _has_ended(process, 0):
            process.terminate()
            end = time.monotonic() + _PATIENCE_SECONDS
            while not _has_ended(process, _LOOK_SECONDS):
                if _in_a_hurry.is_set() or time.monotonic() > end:
                    process.kill()
    except BaseException:  # a second time: it had its chance to save
        process.kill()
        _has_ended(process)
        raise
    finally:
        if process.exitcode:
            with suppress(ProcessLookupError):  # ranks and loader workers that it left behind
                os.killpg(process.pid or 0, signal.SIGKILL)


def _begin(target: Callable[..., None], arguments: tuple[object, ...], log_file: Path, env: Mapping[str, str]) -> None:
    os.setpgrp()  # a Ctrl-C in the terminal is for the process that waits
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.close(log)
    threads = os.environ.get(THREADS)
    os.environ.clear()
    os.environ.update(env)
    if os.environ.get(THREADS, threads) != threads:  # what this process was forked from had read another number
        import torch

        torch.set_num_threads(int(os.environ[THREADS]))
    signals.obey()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOPPING)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    target(*arguments)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
