"""A run that is continued from its folder: it may be somebody else's, and its data may have moved."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kdexp import results
from kdexp.config.moved_folders import moved
from kdexp.config.require import Values
from kdexp.config.untrusted import check_folder, stored
from kdexp.experiment import changes
from kdexp.experiment.ranks import rank

log = logging.getLogger(__name__)


def check_resumed(folder: Path) -> None:
    """See that a folder holds a run, and neither links that lead out of it nor settings of W&B.

    Raises:
        ValueError: there is no run, or one of these.
    """
    results.read(folder, "resume")
    check_folder(folder, "resume")


def configuration_of(
    values: Values, folder: Path, typed: Sequence[str], tracking: Values, *, data_dir: str, store_dir: str
) -> DictConfig:
    """Its configuration, in which what is typed besides says where things are: the data, the store, the trackers.

    Args:
        values: in its results.
        folder: of the run.
        typed: the overrides of now.
        tracking: as it is set now.
        data_dir: as it is set now.
        store_dir: as it is set now.
    """
    given = {override.partition("=")[0] for override in typed}
    changed = {key: value for key, value in tracking.items() if given & {"tracking", f"tracking.{key}"}}
    own = stored(values)
    has_moved = "data_dir" in given or ("KDEXP_DATA_DIR" in os.environ and not Path(own["data_dir"]).is_dir())
    own = moved(
        own,
        data_dir=data_dir if has_moved else None,
        store_dir=store_dir if "store_dir" in given else None,
    )
    return OmegaConf.create(
        own | {"resume": str(folder), "output_dir": str(folder), "tracking": own["tracking"] | changed}
    )


def warn_of_changes(earlier: results.Record, values: Values) -> None:
    """Say once, on rank 0, what the run was made of that is another thing now.

    Args:
        earlier: its results.
        values: its configuration now, in plain values.
    """
    if rank() == 0 and (changed := changes.what_changed(earlier, values)):
        log.warning("warning: %s: the results of this run are of both", changed)
