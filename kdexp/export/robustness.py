"""The robustness of a file, beside teacher, control and the student that it was written from."""

from pathlib import Path

from kdexp.config.compose import plain
from kdexp.config.require import Values
from kdexp.experiment.compared_networks import subjects_of
from kdexp.experiment.finished_run import FinishedRun
from kdexp.experiment.measured_conditions import Subject
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.export.measured import Network
from kdexp.report import robustness_artifacts, robustness_json, robustness_terminal
from kdexp.robustness import configured
from kdexp.robustness.settings import EXPORTED


def without_gradients(settings: Values) -> tuple[Values, list[str]]:
    """The settings of a report without the axes that need gradients, and what is to be said of it.

    Args:
        settings: conf/robustness, in plain values.

    Raises:
        ValueError: a setting breaks its rule, or nothing is left to measure.
    """
    configured.check(settings)
    found = configured.axes(settings)
    left_out = [axis.name for axis in found if axis.needs_gradients]
    if len(left_out) == len(found):
        rule = "must have an axis that needs no gradients, which a file does not have"
        raise ValueError(f"robustness {rule}, got {', '.join(left_out) or 'no axis'}")
    notes = [f"{name} left out: a file has no gradients (kdexp-eval attacks the student)" for name in left_out]
    return {name: own for name, own in plain(settings).items() if name not in left_out}, notes


def evaluator(finished: FinishedRun, notes: list[str]) -> RobustnessEvaluator:
    """What is measured, before there is a file.

    Args:
        finished: the run, with the robustness settings that are wanted.
        notes: of the report.

    Raises:
        ValueError: see `RobustnessEvaluator`.
    """
    with finished.building():
        found = RobustnessEvaluator(finished.experiment, finished.device)
    found.notes += notes
    return found


def report(
    finished: FinishedRun, of: RobustnessEvaluator, control: str, network: Network, digest: str, out: Path
) -> None:
    """Measure the robustness of a file, write robustness.json and its figures beside it, and show it.

    Args:
        finished: the run.
        of: see `evaluator`.
        control: see `kdexp.experiment.compared_networks.subjects_of`.
        network: the file, normalised inputs to logits.
        digest: of the file.
        out: its folder.
    """
    subjects = subjects_of(finished, control)
    subjects[EXPORTED] = Subject(network, digest, out / "robustness", None)
    found = robustness_json.to_pass_on(of.found(subjects))
    robustness_terminal.show(robustness_artifacts.write(found, out), out)
