"""What a finished run's report compares: its teacher, its control and its student."""

from kdexp.experiment.control_run import control_folder
from kdexp.experiment.finished_run import FinishedRun
from kdexp.experiment.measured_conditions import Subject
from kdexp.experiment.robustness_report import run_subject, subjects


def subjects_of(finished: FinishedRun, control: str, *, in_sweep: bool = False) -> dict[str, Subject]:
    """Teacher, control and student of a finished run, as far as they are there, by role.

    Args:
        finished: the run.
        control: what becomes of a control that is not there: train, find or skip.
        in_sweep: whether the run is of a sweep.

    Raises:
        ValueError: no control is there, and none may be trained; weights that do not fit.
        FileNotFoundError: weights are gone.
    """
    experiment, device = finished.experiment, finished.device
    with finished.building():
        own = run_subject(experiment, finished.folder, device)
    is_control, beside = finished.results["is_control"], None
    if not is_control and control != "skip":
        place = control_folder(finished, in_sweep=in_sweep, is_trained=control == "train")
        beside = run_subject(FinishedRun(place, finished.machine, setting="control").experiment, place, device)
    with finished.building():
        return subjects(experiment, own, device, is_control=is_control, control=beside)
