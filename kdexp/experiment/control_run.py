"""The control of a finished run, trained when it is wanted."""

import logging
from pathlib import Path

from kdexp import recording
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.finished_run import FinishedRun
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.single_run import distill
from kdexp.naming import counted
from kdexp.report import runs

log = logging.getLogger(__name__)


def control_folder(distilled: FinishedRun, *, in_sweep: bool, is_trained: bool) -> Path:
    """The folder of a run's control, which is trained where there is none.

    Args:
        distilled: the run.
        in_sweep: whether it is of a sweep.
        is_trained: whether a control may be trained.

    Raises:
        ValueError: there is none, and none may be trained.
    """
    # One that control=train trained lies in the folder of its run, and serves the sweep's other runs of that seed.
    folder = distilled.folder
    places = [folder.parent, folder, *(sorted(folder.parent.iterdir()) if in_sweep else [])]
    for place in places:
        if (found := runs.control_folder(distilled.results, place)) is not None:
            return found
    if not is_trained:
        raise ValueError(
            f"control must be found beside the run, got none in {folder.parent}: control=train trains it, "
            "control=skip leaves the comparison out"
        )
    trained = folder / "control"
    log.info(
        "control (baseline: the same student without a teacher): none beside the run, training it in %s, %s",
        trained,
        counted(distilled.experiment.epochs, "epoch"),
    )
    train_control(distilled.experiment, trained)
    return trained


def train_control(experiment: Experiment, folder: Path) -> None:
    """Train a run's control in a run folder of its own: the same student, data, recipe and seed, without a teacher.

    Args:
        experiment: the run's.
        folder: of the control.
    """
    control = experiment.control()
    control.config.output_dir, control.config.robustness = str(folder), {}
    with recording.recording(folder, run_metadata(control.values, ["alpha=1"], {})) as record:
        distill(control, folder, record)
