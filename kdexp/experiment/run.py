"""One experiment: the whole of it, from the data to results.json."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kdexp import results, run_folder
from kdexp.config import quick
from kdexp.config.compose import plain
from kdexp.config.moved_folders import moved
from kdexp.config.require import Values
from kdexp.config.untrusted import check_folder, stored
from kdexp.experiment import changes
from kdexp.experiment.check import check
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.prior_runs import complete_prior_run, recording_on_rank_0
from kdexp.experiment.ranks import rank
from kdexp.experiment.same_run import find_earlier
from kdexp.progress_log import IMPORTING, said_meanwhile
from kdexp.schemes.base import runs_in_order, scheme_of

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
        results.read(folder, "resume")
        check_folder(folder, "resume")
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
        if config.resume:
            tracking = plain(config.tracking)
            config = _continued(
                earlier["config"], folder, tracking, data_dir=config.data_dir, store_dir=config.store_dir
            )
        if config.quick:
            log.info(quick.NOTE)
        check(config)
        return _complete(plain(config), folder, earlier, make, pruner)


def _complete(
    values: Values,
    folder: Path,
    earlier: results.Record,
    make: "Callable[[DictConfig], Experiment] | None",
    pruner: "Pruner | None",
) -> results.Record:
    """Run what is left of a run, whose settings were checked."""
    if values["resume"] and rank() == 0 and (changed := changes.what_changed(earlier, values)):
        log.warning("warning: %s: the results of this run are of both", changed)
    overrides = earlier.get("overrides", _overrides())
    # Imported here: --help and shell completion must not wait for torch.
    with said_meanwhile(IMPORTING):
        from kdexp.experiment.experiment import Experiment
        from kdexp.experiment.single_run import distill
        from kdexp.experiment.student_evaluation import ensemble
        from kdexp.report.terminal import show_run

    started = time.perf_counter()
    names: list[str] = []
    folders: list[Path] = []
    with recording_on_rank_0(folder, run_metadata(values, overrides, earlier)) as record:
        for name, own in runs_in_order(values):
            if name:
                names.append(name)
                folders.append(Path(own["output_dir"]))
                record["prior_runs"] = names
                complete_prior_run(own, name, overrides, record["fingerprint"])
            else:
                distill((make or Experiment)(OmegaConf.create(dict(own))), folder, record, pruner)
        if rank() == 0:
            if scheme_of(values["scheme"]).ensemble and names and pruner is None:
                record["ensemble"] = ensemble(Experiment(values), [*folders, folder])
            record["cost"]["seconds"]["total"] = time.perf_counter() - started
            if earlier.get("status") == "completed":  # a trial of a search that is chosen: it was trained before
                record["cost"] = earlier["cost"]
    if rank() != 0:
        return {}
    if values["sweep_dir"] is None or values["resume"]:
        show_run(folder)
    return record


def _continued(values: Values, folder: Path, tracking: Values, *, data_dir: str, store_dir: str) -> DictConfig:
    """The configuration of a run that is continued, which may be somebody else's, and whose data may have moved.

    What is typed besides says where things are: the data, the store, the trackers.

    Args:
        values: in its results.
        folder: of the run.
        tracking: as it is set now.
        data_dir: as it is set now.
        store_dir: as it is set now.
    """
    given = {override.partition("=")[0] for override in _overrides()}
    typed = {key: value for key, value in tracking.items() if given & {"tracking", f"tracking.{key}"}}
    own = stored(values)
    has_moved = "data_dir" in given or ("KDEXP_DATA_DIR" in os.environ and not Path(own["data_dir"]).is_dir())
    own = moved(
        own,
        data_dir=data_dir if has_moved else None,
        store_dir=store_dir if "store_dir" in given else None,
    )
    return OmegaConf.create(
        own | {"resume": str(folder), "output_dir": str(folder), "tracking": own["tracking"] | typed}
    )


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
