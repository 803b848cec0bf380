"""Launchers for one machine: several jobs at a time, and several in one process."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kdexp.config.require import is_count
from kdexp.sweeps.job_supervisor import collect_jobs, run_collected
from kdexp.sweeps.subprocess_runner import THREADS

BACKENDS = ("auto", "loop", "streams", "vmap")


@dataclass
class Joblib:
    """``hydra/launcher=joblib``. Not a file in conf/: Hydra's own plugin, where it is installed, has one of that name.

    Attributes:
        n_jobs: at a time; -1: one a core.
    """

    _target_: str = "hydra_plugins.kdexp.launcher.ParallelLauncher"
    n_jobs: int = -1


class ParallelLauncher(BasicLauncher):
    """Runs several jobs at a time on this machine, each in a process of its own.

    Hydra's own plugin has a worker process for each job at a time, and each would have to import PyTorch for the jobs
    that are forked for it. Here threads wait for jobs that are all forked from one process.

    Args:
        n_jobs: see `Joblib`.
    """

    def __init__(self, n_jobs: int) -> None:
        super().__init__()
        self._most = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See that the settings make sense; here, because Hydra wraps what a constructor says.

        Raises:
            ValueError: they do not.
        """
        if self._most == 0:
            raise ValueError(f"hydra.launcher.n_jobs must be at least 1, or -1 for one a core, got {self._most}")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, several at a time, each with its share of the cores unless the user says how many threads."""
        from joblib import Parallel, cpu_count, delayed, effective_n_jobs  # here: shell completion need not wait for it

        at_once = min(effective_n_jobs(self._most), len(job_overrides))
        share = {} if os.environ.get(THREADS) else {THREADS: str(max(cpu_count() // at_once, 1))}
        preparing = threading.Lock()  # Hydra knows one job at a time

        def run(number: int, overrides: Sequence[str]) -> JobReturn:
            with preparing, collect_jobs() as jobs:
                (done,) = super(ParallelLauncher, self).launch([overrides], number)
            for accuracy in run_collected(jobs).values():
                done.return_value = accuracy
            return done

        with env_override(share):
            returns: list[JobReturn] = Parallel(n_jobs=at_once, backend="threading", batch_size=1)(
                delayed(run)(number, overrides) for number, overrides in enumerate(job_overrides, initial_job_idx)
            )
        return returns


class FusedLauncher(BasicLauncher):
    """See conf/hydra/launcher/fused.yaml: jobs with the same data and teacher share a process."""

    def __init__(self, backend: str, max_students: int | None) -> None:
        super().__init__()
        self._backend, self._most = backend, max_students

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See that the settings make sense; here, because Hydra wraps what a constructor says.

        Raises:
            ValueError: they do not, or what is needed is not installed.
        """
        if self._backend not in BACKENDS:
            raise ValueError(f"hydra.launcher.backend must be one of {', '.join(BACKENDS)}, got {self._backend}")
        if self._most is not None and not is_count(self._most):
            raise ValueError(f"hydra.launcher.max_students must be null or at least 1, got {self._most}")
        if find_spec("greenlet") is None:
            raise ValueError("hydra/launcher=fused needs what is not installed: pip install 'kdexp[fused]'")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Let Hydra prepare all the jobs, and then run them, those together that can be."""
        with collect_jobs() as jobs:
            returns = super().launch(job_overrides, initial_job_idx)
        accuracies = run_collected(jobs, backend=self._backend, max_students=self._most)
        for done in returns:
            assert done.hydra_cfg is not None
            done.return_value = accuracies.get(done.hydra_cfg.hydra.runtime.output_dir)
        return returns
