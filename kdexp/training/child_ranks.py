"""The ranks that Lightning starts: told when the run is to end, watched, and never waited for in vain."""

import os
import signal
import threading
import time
from collections.abc import Callable

import pytorch_lightning as pl
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

from kdexp import recording, signals

_LOOK_SECONDS = 0.5
_TOLD = (-signal.SIGTERM, signals.TERMINATED, -signal.SIGINT, signals.INTERRUPTED)


def take_over(trainer: pl.Trainer) -> None:
    """Let kdexp handle a Trainer's signals and ranks, where Lightning waits for ranks that are gone.

    Its handler of SIGTERM is a collective operation, which some ranks never get to. And when a rank has ended, it kills
    the others within five seconds, whatever they are about to write.
    """
    trainer._signal_connector = _NoSignals(trainer)
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = _Ranks(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


class _NoSignals(_SignalConnector):
    """Leaves all signals to `kdexp.signals`."""

    def register_signal_handlers(self) -> None:
        pass


class _Ranks(_SubprocessScriptLauncher):
    """Starts a process for each further rank on this node, as Lightning's own does, and watches them."""

    def launch(
        self, function: Callable[..., object], *args: object, trainer: pl.Trainer | None = None, **kwargs: object
    ) -> object:
        """Start the ranks, and run a function that all of them run.

        Raises:
            RuntimeError: one of them was killed, whatever this rank noticed of it.
        """
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            with signals.starting_ranks(lambda: [process.pid for process in self.procs]):
                self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        is_over = threading.Event()
        threading.Thread(target=self._watch, args=(is_over,), daemon=True).start()
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:  # of the connection to a rank that is gone, it may be
            time.sleep(_LOOK_SECONDS)
            killed = [how for code, how in self._failed() if code < 0]
            if killed:
                raise RuntimeError(killed[0]) from error
            raise
        finally:
            is_over.set()

    def _watch(self, is_over: threading.Event) -> None:
        """While the function runs, see to it that it does not wait for a rank that is gone."""
        while not is_over.wait(_LOOK_SECONDS):
            for code, how in self._failed():
                if code in _TOLD:
                    os.kill(os.getpid(), signal.SIGTERM)
                elif not is_over.wait(signals.GRACE_SECONDS):  # this rank may be about to say more of it
                    recording.last_word("failed", how)
                    signals.end_now(1)
                return

    def _failed(self) -> list[tuple[int, str]]:
        """The exit codes of ranks that did not end well, and how they ended."""
        codes = [(rank, process.poll()) for rank, process in enumerate(self.procs, 1)]
        return [
            (code, f"rank {rank} was killed by {signal.Signals(-code).name}")
            if code < 0
            else (code, f"rank {rank} ended with exit code {code}")
            for rank, code in codes
            if code
        ]
