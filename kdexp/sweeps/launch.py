"""One launch of a sweep: what it begins with, its jobs watched and stopped, what is shown at its end."""

import _thread
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp import signals
from kdexp.config import exits, quick
from kdexp.config.require import Values
from kdexp.config.untrusted import check_folder
from kdexp.experiment.ranks import rank
from kdexp.naming import counted
from kdexp.sweeps import subprocess_runner
from kdexp.sweeps.job_supervisor import track_gains
from kdexp.sweeps.sweep import Sweep, link_wandb, without_gain

if TYPE_CHECKING:
    from kdexp.sweeps.progress import Progress

_GRACE_SECONDS = 3.0


def begin(folder: Path, *, is_quick: bool) -> None:
    """What comes before the configurations of the jobs are composed.

    Args:
        folder: the sweep's, which may be there already.
        is_quick: ``quick=true``, whose numbers mean nothing.

    Raises:
        ValueError: this process is not the only one, or the folder cannot be taken as it is.
    """
    if rank() != 0:
        raise ValueError("a sweep must be started by one process: kdexp starts the ranks of each job itself")
    subprocess_runner.warm_up()  # while the configurations are composed
    check_folder(folder, "sweep_name")  # a sweep that is continued may be somebody else's
    if is_quick:
        print(quick.NOTE, flush=True)


class Stop:
    """What Ctrl-C, SIGTERM and their like do to a sweep: the first asks its jobs to save and stop.

    The launcher is left alone meanwhile: joblib's way to be interrupted is to kill. When the jobs have stopped, it
    returns; if it does not, for jobs that are still in a queue, it is interrupted, as it is by a second Ctrl-C.

    Attributes:
        number: the signal that came; 0 before.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.number, self._asked = 0, 0.0
        self._sweep = sweep
        self._over = threading.Event()

    def __enter__(self) -> "Stop":
        before = {number: signal.getsignal(number) for number in signals.STOPPING}
        self._before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self.number:
            if now - self._asked > signals.SAME_SECONDS:
                subprocess_runner.hurry()
                raise KeyboardInterrupt
            return
        self.number, self._asked = number, now
        self._sweep.request_stop()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        self._sweep.wait(for_others=False)
        if not self._over.wait(_GRACE_SECONDS):
            _thread.interrupt_main()


def run(
    sweep: Sweep,
    progress: "Progress",
    work: Callable[[Sweep, Stop], None],
    show_end: Callable[[Sweep], None],
    *,
    launcher: str,
    tracking: Values,
) -> None:
    """Run the jobs of a sweep, show the comparison, and exit with 1 when a job did not complete, or none did.

    Args:
        sweep: whose jobs they are.
        progress: shows what becomes of them.
        work: gives jobs to the launcher until none is left, or it is to stop.
        show_end: prints what came out.
        launcher: its name, for errors that are not a job's.
        tracking: conf/tracking, as it was typed now.
    """
    with progress, sweep.watched(progress.show), Stop(sweep) as stop:
        try:
            work(sweep, stop)
        except KeyboardInterrupt:
            pass
        except Exception as error:  # of the launcher's; those of jobs do not come here
            print(f"error: {launcher}: {error}", file=sys.stderr)
    show_end(sweep)
    if not stop.number:
        _track_late_gains(sweep.folder, tracking)
    if together := link_wandb(sweep.folder):
        print(f"W&B           wandb leet {shlex.quote(str(together))}")
    states = sweep.states()
    if stop.number:
        if not any(map(sweep.is_unfinished, states)):  # between the stages of a search, say: more was to come
            print(f"run again     {sweep.command}")
        exits.leave(signals.exit_code(stop.number), "interrupted")
    # A trial that diverged is not unfinished, but where all have there is nothing to choose from.
    if any(map(sweep.is_unfinished, states)) or not any(state.status == "completed" for state in states):
        sys.exit(exits.FAILED)


def _track_late_gains(folder: Path, tracking: Values) -> None:
    """Tell the trackers of runs that were done before their control what they gained over it."""
    late = without_gain(folder)
    if late:
        print(
            f"tracking      adding gain/* and control/* to {counted(len(late), 'run')} that ended before their control"
        )
        track_gains(late, tracking, folder / "tracking.log")


def show_end(sweep: Sweep, names: Collection[str] | None = None, show_more: Callable[[], None] = lambda: None) -> None:
    """Print the comparison of a sweep's runs, and what is left to run.

    Args:
        sweep: whose they are.
        names: of the run folders that are compared; all unless given.
        show_more: prints what else came out.
    """
    from kdexp.report.terminal import show_sweep
    from kdexp.sweeps.progress import show_left

    show_sweep(sweep.folder, names, is_page_of_all=names is None)
    show_more()
    show_left(sweep.folder, sweep.states(), sweep.command)
