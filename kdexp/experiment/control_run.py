"""The control of a finished run, trained when it is wanted."""

from pathlib import Path

from kdexp import recording
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.single_run import distill


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
