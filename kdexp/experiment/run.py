"""One experiment: the whole of it, from the data to results.json."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kdexp import results, run_folder
from kdexp.config import quick
from kdexp.config.compose import plain
from kdexp.experiment import resumed_run
from kdexp.experiment.check import check
from kdexp.experiment.ranks import rank
from kdexp.experiment.run_sequence import complete
from kdexp.experiment.same_run import find_earlier

if TYPE_CHECKING:
    from kdexp.experiment.experiment import Experiment
    from kdexp.training.fit import Pruner

log = logging.getLogger(__name__)


def run(
    config: DictConfig, make: "Callable[[DictConfig], Experiment] | None" = None, pruner: "Pruner | None" = None
) -> results.Record:
    """Run one experiment: the whole of it, from the data to results.json.

    Args:
        config: as `kdexp.config.compose.compose` or Hydra makes it. Everything is written to ``config.output_dir``.
        make: makes the experiment of the run itself; None: `kdexp.experiment.experiment.Experiment`. Runs that share
            parts with others in this process have their own.
        pruner: of a trial of a search: it may end the training, and the test split is left alone.

    Returns:
        The content of results.json; an empty dict on ranks other than 0.

    Raises:
        ValueError: a setting breaks a rule, or the folder holds another run; nothing has been trained yet.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: a part of the loss was no longer finite; the last good checkpoint is kept.
    """
    folder = Path(config.resume or config.output_dir).absolute()
    if config.resume:
        resumed_run.check_resumed(folder)
    with run_folder.alone(folder) if rank() == 0 else nullcontext():
        in_sweep, rerun = config.sweep_dir is not None, config.rerun == "all"
        earlier = (
            results.read(folder, "resume")
            if config.resume
            else find_earlier(folder, partial(plain, config), in_sweep=in_sweep, rerun=rerun)
        )
        if earlier.get("status") == "completed" and (pruner is not None or "test" in earlier["metrics"]):
            log.info("this run is complete already: %s", folder)
            if config.robustness and not config.resume and not (folder / results.ROBUSTNESS).is_file():
                log.warning(
                    "warning: it has no robustness report: kdexp-eval %s robustness=... makes one",
                    results.argument("run", folder),
                )
            return earlier
        if earlier and rank() == 0:
            log.info("continuing this run, which ended as %s: %s", earlier["status"], folder)
        typed = _overrides()
        if config.resume:
            config = resumed_run.configuration_of(
                earlier["config"],
                folder,
                typed,
                plain(config.tracking),
                data_dir=config.data_dir,
                store_dir=config.store_dir,
            )
        if config.quick:
            log.info(quick.NOTE)
        check(config)
        values = plain(config)
        if values["resume"]:
            resumed_run.warn_of_changes(earlier, values)
        return complete(values, folder, earlier.get("overrides", typed), earlier, make, pruner)


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
