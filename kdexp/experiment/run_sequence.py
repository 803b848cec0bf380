"""The runs of an experiment, one after the other: those that its scheme wants before it, and at last itself."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from kdexp import results
from kdexp.config.require import Values
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.prior_runs import complete_prior_run, recording_on_rank_0
from kdexp.experiment.ranks import rank
from kdexp.progress_log import importing
from kdexp.schemes.base import runs_in_order, scheme_of

if TYPE_CHECKING:
    from kdexp.experiment.experiment import Experiment
    from kdexp.training.fit import Pruner


def complete(
    values: Values,
    folder: Path,
    overrides: list[str],
    earlier: results.Record,
    make: "Callable[[DictConfig], Experiment] | None",
    pruner: "Pruner | None",
) -> results.Record:
    """Run what is left of a run, whose settings were checked, and show what came out.

    Args:
        values: its configuration, in plain values.
        folder: of the run.
        overrides: what was typed.
        earlier: the results of the run that is continued, or nothing.
        make: see `kdexp.experiment.run.run`.
        pruner: see there.

    Returns:
        The content of results.json; an empty dict on ranks other than 0.
    """
    # Imported here: --help and shell completion must not wait for torch.
    with importing():
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
