"""``hydra/launcher=fused``: jobs that see the same data and ask the same teacher are trained in one process."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn

from kdexp import launch


class FusedLauncher(BasicLauncher):
    """See conf/hydra/launcher/fused.yaml."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Let Hydra prepare all the jobs, and then run them, those together that can be."""
        with launch.gathered() as jobs:
            returns = super().launch(job_overrides, initial_job_idx)
        accuracies = launch.run_fused(jobs)
        for done in returns:
            assert done.hydra_cfg is not None
            done.return_value = accuracies.get(done.hydra_cfg.hydra.runtime.output_dir)
        return returns
