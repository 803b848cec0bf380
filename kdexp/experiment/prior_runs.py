"""Runs that must come before a run: those of a scheme."""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from kdexp import recording, results, run_folder
from kdexp.atomic import training_lock
from kdexp.config.identity import Identity, fingerprint
from kdexp.config.require import Values
from kdexp.experiment import changes
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.ranks import barrier, rank
from kdexp.training.settings import is_one_process

log = logging.getLogger(__name__)


def complete_prior_run(values: Values, name: str, overrides: list[str], of: str) -> None:
    """A run that comes before the run itself: found complete in its folder or in the store, else trained and kept.

    A copy in the store serves other runs that need the same: those of a sweep, a source domain's teacher above all.

    Args:
        values: its configuration.
        name: its name among those before the run.
        overrides: what was typed.
        of: the fingerprint of the run that it comes before, by which its training is known, too: the folder of that is
            in its own fingerprint, and may be moved.
    """
    from kdexp.experiment.experiment import Experiment  # here: --help must not wait for torch
    from kdexp.experiment.single_run import distill

    folder, kept = Path(values["output_dir"]), Path(values["store_dir"]) / results.PRIOR_RUNS / Identity(values).key
    shares = is_one_process(values["trainer"])  # ranks that begin at once might find different things
    if _is_there(folder, kept if shares else None, values):
        log.info("%s: complete already: %s", name, folder)
    else:
        with training_lock(kept.with_suffix(".lock"), name) if shares else nullcontext():
            if not _is_there(folder, kept if shares else None, values):  # nor did another process train it meanwhile
                log.info("%s: %s", name, folder)
                earlier = results.read(folder, "resume") if (folder / results.FILE).is_file() else {}
                if earlier and changes.what_changed(earlier, values):
                    earlier = {}
                    if rank() == 0:
                        run_folder.set_aside(folder)
                with recording_on_rank_0(folder, run_metadata(values, overrides, earlier)) as record:
                    distill(Experiment(values), folder, record, owner=fingerprint([of, name]))
                if shares:
                    run_folder.copy(folder, kept)
    barrier()


def _is_there(folder: Path, kept: Path | None, values: Values) -> bool:
    """Whether a run is complete in its folder, if need be as a copy of the one that is kept."""
    if not _is_complete(folder, values) and kept is not None and _is_complete(kept, values):
        run_folder.copy(kept, folder)
    return _is_complete(folder, values)


def _is_complete(folder: Path, values: Values) -> bool:
    try:
        found = results.read(folder, "resume")
    except ValueError:  # nothing is there, or it is damaged
        return False
    if found["status"] != "completed" or changes.what_changed(found, values):
        return False
    weights = folder / results.WEIGHTS
    if run_folder.is_altered(weights):
        log.warning("%s: corrupt file, made again: its SHA-256 is not the one in %s", weights, results.FILE)
        return False
    return True


def recording_on_rank_0(folder: Path, metadata: results.Results) -> AbstractContextManager[results.Results]:
    """`recording` on rank 0; the other ranks write nothing."""
    return recording.recording(folder, metadata) if rank() == 0 else nullcontext(metadata)
