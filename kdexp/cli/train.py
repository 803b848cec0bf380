"""``kdexp-train``: distill a student, or train it alone, as the configuration says."""

import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from kdexp.cli import program
from kdexp.config.compose import HYDRA_VERSION_BASE
from kdexp.experiment.ranks import rank
from kdexp.experiment.run import run
from kdexp.sweeps import subprocess_runner
from kdexp.sweeps.job_supervisor import job


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="train")
def _train(config: DictConfig) -> float | None:
    return job(config, run, "kdexp.cli.train")


def main() -> None:
    """The command."""
    typed = set(sys.argv)
    if typed & {"-m", "--multirun"} and not typed & {"-h", "--help"} and rank() == 0:
        subprocess_runner.warm_up()  # what jobs need is imported while Hydra reads what they are
    plugins = Plugins.instance()
    # After Hydra's own search, which loads the class anew that these are made of. In an editable installation that
    # search does not find it.
    from hydra_plugins.kdexp.budget import BudgetSweeper
    from hydra_plugins.kdexp.launcher import FusedLauncher, Joblib, ParallelLauncher
    from hydra_plugins.kdexp.search import Search
    from hydra_plugins.kdexp.sweeper import Sweeper

    for plugin in (Sweeper, Search, BudgetSweeper, FusedLauncher, ParallelLauncher):
        plugins.register(plugin)
    ConfigStore.instance().store(name="joblib", group="hydra/launcher", node=Joblib)
    program.run_in_output_dir()
    program.program(_train)


if __name__ == "__main__":
    main()
