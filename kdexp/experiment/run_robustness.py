"""The robustness of the run that has just been trained."""

from pathlib import Path

from kdexp.experiment.experiment import Experiment
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.experiment.robustness_report import run_subject, subjects
from kdexp.report.robustness_terminal import show
from kdexp.report.runs import control_folder
from kdexp.results import Record


def robustness_of_run(evaluator: RobustnessEvaluator, experiment: Experiment, record: Record, folder: Path) -> Record:
    """Measure, report and show the robustness of a run; next to its control when that is there already.

    Args:
        evaluator: of the run's data.
        experiment: the run's.
        record: its results.
        folder: of the run.

    Returns:
        The content of robustness.json.
    """
    device = experiment.device
    own, control = run_subject(experiment, folder, device), None
    if not record["is_control"]:
        found = control_folder(record, folder.parent)
        if found is None:
            evaluator.notes.append("no control (alpha=1) is there yet: kdexp-eval compares with it later")
        else:
            try:
                control = run_subject(experiment.control(), found, device)
            except (OSError, ValueError) as error:
                evaluator.notes.append(f"the control in {found} cannot be read: {error}")
    compared = subjects(experiment, own, device, is_control=record["is_control"], control=control)
    report = evaluator.report(compared, folder)
    show(report, folder)
    return report
