"""How a process ends that is told to: within seconds, whatever it is doing, and with a word of it in results.json."""

import logging
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What tells a process to end. SLURM announces the end of a job's time with SIGUSR1 or 2, whichever was chosen."""

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # as shells count signals
"""Exit codes: after Ctrl-C, and after any other of `STOPPING`."""

GRACE_SECONDS = 5.0
"""A process may take so long to end by itself once it was told to."""
SAME_SECONDS = 1.0
"""Signals that come within so many seconds are one request: `timeout` and SLURM send several."""

_RANK_0 = "KDEXP_RANK_0"  # environment variable: the process that started this rank
_LOOK_SECONDS = 0.5


class Terminated(SystemExit):
    """This process was told to end."""


class _State:
    """What this process knows of its end.

    Attributes:
        number: the signal that told it to end; 0: none did.
        is_ending: whether `Terminated` was raised.
        ranks: processes that this one started as ranks of its job.
        rank_0: the process that started this one as a rank; 0: none did.
    """

    def __init__(self) -> None:
        self.number = 0
        self.is_ending = False
        self.ranks: list[int] = []
        self.rank_0 = 0


_state = _State()


def exit_code(number: int) -> int:
    """Of a process that this signal ended."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


def interruption(error: BaseException) -> int | None:
    """The exit code of a process that was told to end before this exception came; None: it was not.

    Whatever the exception is: what a process meets on its way out (a rank that has ended before) is no failure.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(cause, SystemExit) and cause.code in (INTERRUPTED, TERMINATED):
            return int(cause.code)
        cause = cause.__context__  # Lightning turns Ctrl-C into SystemExit; what it came from is still linked
    return exit_code(_state.number) if _state.number else None


def obey() -> None:
    """From now on the main thread raises `Terminated` at a signal of `STOPPING` that is not ignored (``nohup``)."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)


@contextmanager
def obeyed() -> Iterator[None]:
    """See `obey`; a command that is told to end says so in one line, unless it has said more, and has an exit code."""
    obey()
    try:
        yield
    except BaseException as error:
        code = interruption(error)
        if code is None or type(error) is SystemExit:
            raise
        if not _state.rank_0:  # rank 0 speaks for all
            print("error: interrupted", file=sys.stderr)
        sys.exit(code)
    finally:
        if _state.is_ending:  # the interpreter's own end is not disturbed either, and packages have nothing to add
            logging.disable()
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)


@contextmanager
def ctrl_c_kept() -> Iterator[None]:
    """Ctrl-C does afterwards what it did before: Lightning has it ignored for good once a training was interrupted.

    (A notebook goes on after that, and so does what it starts, which inherits it.)
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set it, and in no other it was set
            signal.signal(signal.SIGINT, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    if not _state.is_ending:  # once: what the process does on its way out is not disturbed
        _state.is_ending = True
        _tell(number)
        raise Terminated(exit_code(number))


def _tell(number: int) -> None:
    """Tell the job's other processes first: that this one is gone is then no failure of theirs."""
    if not _state.number:
        _state.number = number
        for pid in _state.ranks:
            _send(pid, signal.SIGTERM)
        if _state.rank_0:
            _send(_state.rank_0, number)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def starting_ranks(ranks: Callable[[], list[int]]) -> Iterator[None]:
    """Meanwhile processes are started that are ranks of this one's job; they end when it ends.

    Args:
        ranks: gives their ids in the end.
    """
    os.environ[_RANK_0] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_RANK_0]
        _state.ranks = ranks()
        if _state.number:  # meanwhile
            for pid in _state.ranks:
                _send(pid, signal.SIGTERM)


def end_in_time(last_word: Callable[[int], None], *, at_once: bool) -> None:
    """Watch the main thread from now on: a call that does not return must not keep the process from ending.

    (A handler runs between two steps of the interpreter, and a collective operation whose other ranks are gone is one
    step that may take half an hour.) The process ends `GRACE_SECONDS` after it was told to, if not by itself, and a
    rank with the process that started it.

    Args:
        last_word: is called with the exit code when the process does not end by itself.
        at_once: whether a second signal ends it without grace. A rank, and a job of a sweep, may get several at once.
    """
    _state.rank_0 = int(os.environ.pop(_RANK_0, 0))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # signals to a loader's worker are its own
    threading.Thread(target=_watch, args=(reader, last_word, at_once and not _state.rank_0), daemon=True).start()


def _watch(reader: int, last_word: Callable[[int], None], at_once: bool) -> None:
    told_at = math.inf
    while not _state.rank_0 or _state.rank_0 == os.getppid():
        ready, _, _ = select.select([reader], [], [], _LOOK_SECONDS)
        came = [n for n in (os.read(reader, 1024) if ready else b"") if n in STOPPING]
        now = time.monotonic()
        if came:
            _tell(came[0])
            told_at = min(told_at, now)
        if now - told_at > (SAME_SECONDS if came and at_once else GRACE_SECONDS):
            last_word(exit_code(_state.number))
            end_now(exit_code(_state.number))
    os._exit(TERMINATED)


def end_now(code: int) -> None:
    """End this process, and the ranks that it started, without another step of the main thread."""
    for pid in _state.ranks:
        _send(pid, signal.SIGKILL)
    os._exit(code)


def reason(code: int) -> str:
    """Why a process ended with this exit code, `INTERRUPTED` or `TERMINATED`."""
    return "interrupted by Ctrl-C" if code == INTERRUPTED else "told to end by a signal (SIGTERM, SIGHUP or SIGUSR)"
