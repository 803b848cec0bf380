"""``hydra/launcher=fused``: jobs that see the same data and ask the same teacher are trained in one process."""

from collections.abc import Sequence
from importlib.util import find_spec

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kdexp import launch
from kdexp.config import is_count

BACKENDS = ("auto", "loop", "vmap")


class FusedLauncher(BasicLauncher):
    """See conf/hydra/launcher/fused.yaml."""

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
        with launch.gathered() as jobs:
            returns = super().launch(job_overrides, initial_job_idx)
        accuracies = launch.run_fused(jobs, backend=self._backend, max_students=self._most)
        for done in returns:
            assert done.hydra_cfg is not None
            done.return_value = accuracies.get(done.hydra_cfg.hydra.runtime.output_dir)
        return returns
