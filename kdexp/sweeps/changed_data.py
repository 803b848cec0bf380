"""Jobs that ran before with other data or files than those that are there now."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from kdexp import results
from kdexp.config.compose import plain, release_data
from kdexp.config.identity import fingerprint
from kdexp.config.require import Values
from kdexp.experiment.changes import data_digest, what_changed
from kdexp.sweeps.sweep import Job, Sweep

log = logging.getLogger(__name__)


def marked_stale(folder: Path, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> list[Job]:
    """The same jobs, those marked that ran before with other data: files may have changed where they lie.

    Args:
        folder: the sweep's.
        jobs: of a launch that begins.
        configs: the configuration of each.
    """
    digests: dict[str, str] = {}

    def digest(values: Values) -> str:
        source = fingerprint([values["dataset"]["source"], values["task"], values["store_dir"]])
        digests[source] = digests.get(source) or data_digest(values)
        return digests[source]

    marked, changes = [], Counter[str]()
    for job, config in zip(jobs, configs, strict=True):
        before = results.read_or_nothing(folder / job.folder)
        values = plain(config) | {"output_dir": str(folder / job.folder)}
        changed = what_changed(before, values, digest) if before else ""
        marked.append(replace(job, stale=before["wandb_id"]) if changed else job)
        changes.update([changed] if changed else [])
    release_data(samples_only=True)
    for changed, number in changes.items():
        log.warning("warning: of jobs that ran before, %d run again: %s", number, changed)
    return marked


def refuse_other_data(sweep: Sweep, values: Values) -> None:
    """See that what earlier trials of a search found was found on these data: files may have changed where they lie.

    Args:
        sweep: the search's.
        values: the configuration of one of its trials.

    Raises:
        ValueError: it was not.
    """
    trials = [results.read_or_nothing(sweep.folder / state.job.folder) for state in sweep.states()]
    trials = [trial for trial in trials if trial.get("data_content")]
    if trials:
        now = data_digest(values)
        release_data(samples_only=True)
        others = sum(results.has_other_data(trial, now) for trial in trials)
        if others:
            raise ValueError(
                f"sweep_name must be a search on the same data, got {sweep.folder}, with {others} trials on data that "
                "have changed since; choose another sweep_name, or rerun=all to set them aside"
            )
