"""The networks of a robustness report: the student or control of a finished run, its control and its teacher."""

import logging
from pathlib import Path

import torch

from kdexp import results
from kdexp.config.identity import fingerprint
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.measured_conditions import Subject
from kdexp.experiment.networks import penultimate
from kdexp.experiment.trained_student import trained_student
from kdexp.features import Reader
from kdexp.robustness.settings import CONTROL, STUDENT, TEACHER
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest

log = logging.getLogger(__name__)


def run_subject(experiment: Experiment, folder: Path, device: torch.device) -> Subject:
    """The student of a finished run, whose measured conditions are kept in its run folder.

    Args:
        experiment: of the run.
        folder: of the run.
        device: where the network is to be.

    Raises:
        ValueError: the weights do not fit.
        FileNotFoundError: the weights are gone.
    """
    config, student = experiment.config, trained_student(experiment, folder / results.WEIGHTS, "run")
    path = penultimate("student", config.student, student, config.dataset.input_shape)
    digest = state_digest(student)
    reader = Reader(student.to(device).eval(), [path] if path else [])
    represent = (lambda inputs: reader(inputs).features[path]) if path else None
    return Subject(student, digest, folder / "robustness", represent)


def teacher_subject(experiment: Experiment, teacher: Teacher) -> Subject:
    """The teacher, measured once in a store for every student of it. It reads its penultimate features."""
    digest = fingerprint([state_digest(network) for network in teacher.networks])
    path = None
    if len(teacher.networks) == 1:
        setting, member = experiment.one_teacher
        path = penultimate(setting, member, teacher.networks[0], experiment.config.dataset.input_shape)
    teacher.read([path] if path else [])
    represent = (lambda inputs: teacher(inputs).features[path]) if path else None
    folder = Path(experiment.config.store_dir) / "teacher-robustness" / digest
    return Subject(teacher.differentiable, digest, folder, represent)


def subjects(
    experiment: Experiment, own: Subject, device: torch.device, *, is_control: bool, control: Subject | None
) -> dict[str, Subject]:
    """What the report of a run compares, by role.

    Args:
        experiment: of the run; its teacher is compared where it is there and can be run on any inputs.
        own: the run's student.
        device: where the networks are.
        is_control: whether the run is a control, a student trained without a teacher.
        control: that of the run; None: there is none to compare with.
    """
    found = {CONTROL if is_control else STUDENT: own}
    if control is not None:
        found[CONTROL] = control
    if experiment.teacher is not None and not (reason := _why_left_out(experiment, experiment.teacher)):
        found[TEACHER] = teacher_subject(experiment, experiment.teacher.to(device))
    elif experiment.teacher is not None:
        log.info("robustness: the teacher is left out: %s", reason)
    return found


def _why_left_out(experiment: Experiment, teacher: Teacher) -> str:
    if not teacher.takes_any_inputs:
        return "its outputs come from a file, which has none of other inputs"
    is_file = any("file" in member for member in experiment.members.values())
    return (
        "no gradient goes through an ONNX file, which attacks need"
        if is_file and experiment.config.robustness.get("attacks")
        else ""
    )
