"""The networks of a robustness report: the student or control of a finished run, its control and its teacher."""

from pathlib import Path
from typing import Any

import torch

from kdexp import results
from kdexp.config.identity import fingerprint
from kdexp.experiment.members import teachers
from kdexp.experiment.networks import penultimate, trained_student
from kdexp.experiment.robustness_evaluator import Subject
from kdexp.features import Reader
from kdexp.robustness.bootstrap import CONTROL, STUDENT, TEACHER
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest


def run_subject(config: Any, folder: Path, device: torch.device) -> Subject:
    """The student of a finished run, whose cells are kept in its run folder.

    Args:
        config: of the run.
        folder: of the run.
        device: where the network is to be.

    Raises:
        ValueError: the weights do not fit.
        FileNotFoundError: the weights are gone.
    """
    student = trained_student(config, folder / results.WEIGHTS, "run")
    digest, path = state_digest(student), penultimate(config, "student", config.student, student)
    reader = Reader(student.to(device).eval(), [path] if path else [])
    represent = (lambda inputs: reader(inputs).features[path]) if path else None
    return Subject(student, digest, folder / "robustness", represent)


def teacher_subject(config: Any, frozen: Teacher) -> Subject:
    """The teacher, whose cells are kept in the store, for every student of it. It reads its penultimate features."""
    digest = fingerprint([state_digest(network) for network in frozen.networks])
    path = None
    if len(frozen.networks) == 1:
        ((setting, member),) = teachers(config).items()
        path = penultimate(config, setting, member, frozen.networks[0])
    frozen.read([path] if path else [])
    represent = (lambda inputs: frozen(inputs).features[path]) if path else None
    return Subject(frozen.differentiable, digest, Path(config.store_dir) / "teacher-robustness" / digest, represent)


def subjects(
    config: Any,
    own: Subject,
    device: torch.device,
    *,
    is_control: bool,
    control: Subject | None,
    frozen: Teacher | None,
) -> dict[str, Subject]:
    """What the report of a run compares, by role.

    Args:
        config: of the run.
        own: the run's student.
        device: where the networks are.
        is_control: whether the run is a control, a student trained without a teacher.
        control: that of the run; None: there is none to compare with.
        frozen: the run's teacher; None: it has none, or it is gone.
    """
    found = {CONTROL if is_control else STUDENT: own}
    if control is not None:
        found[CONTROL] = control
    if frozen is not None:
        found[TEACHER] = teacher_subject(config, frozen.to(device))
    return found
