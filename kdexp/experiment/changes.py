"""Whether a run's data and files are still what they were."""

import logging
from collections.abc import Callable
from pathlib import Path

from kdexp import results
from kdexp.config.compose import one_line
from kdexp.config.require import Values
from kdexp.experiment.members import new_task, teacher_files, teachers, with_own_targets
from kdexp.results import Record
from kdexp.schemes.base import runs_in_order
from kdexp.schemes.prior_run_settings import folder

log = logging.getLogger(__name__)


def data_digest(values: Values) -> str:
    """Digest of the data that an experiment would load now, with its task's own targets; see `Data.content`.

    Args:
        values: its configuration, as `plain` gives it.
    """
    from kdexp.data.content import of_source  # here: --help and most refusals must not wait for torch
    from kdexp.data.inferred import peek

    task = new_task(values["task"], values["dataset"])
    return of_source(with_own_targets(task, peek(values["dataset"]["source"])), Path(values["store_dir"]))


def what_changed(found: Record, values: Values, digest: Callable[[Values], str] = data_digest) -> str:
    """What a run was made of that is another thing now, though its settings are the same: files may be replaced.

    Args:
        found: its results.
        values: its configuration now, as `kdexp.config.compose.plain` gives it.
        digest: see `kdexp.experiment.changes.data_digest`.

    Returns:
        For a message; empty where nothing did. What cannot be read any more does not matter to a run that is completed;
        a warning says so.
    """
    try:
        if _has_other_data(found, values, digest):
            return "its data have changed since"
        for name, prior in runs_in_order(values):
            place = folder(values, name) / results.FILE
            of_others = name and prior["dataset"]["source"] != values["dataset"]["source"]
            if (
                of_others
                and place.is_file()
                and _has_other_data(results.read(place.parent, "prior run"), prior, digest)
            ):
                return f"the data of its prior run {name!r} have changed since"
        known = found.get("teacher_files") or {}
        for setting, now in (teacher_files(values) if known else {}).items():
            if known.get(setting, now) != now:
                kind = "file" if teachers(values)[setting].get("file") else "weights"
                return f"the file of {setting}.{kind} has changed since"
    except (ValueError, OSError) as error:
        if found["status"] != "completed":
            raise
        log.warning(
            "warning: whether what a completed run was made of is still the same is not known: %s", one_line(error)
        )
    return ""


def _has_other_data(found: Record, values: Values, digest: Callable[[Values], str]) -> bool:
    # An older kdexp's run has no digest, nor has one that ended before it had read its data.
    return found.get("data_content") is not None and results.has_other_data(found, digest(values))
