"""All checks of one experiment, in the order of the table."""

from collections.abc import Iterator

from kdexp.config.identity import Identity
from kdexp.doctor import data_checks, loss_checks, teacher_checks, training_checks
from kdexp.doctor.finding import Finding
from kdexp.doctor.inspection import caught_warnings
from kdexp.doctor.measurements import input_moments, network_size
from kdexp.doctor.step_checks import check_steps
from kdexp.experiment import dry_build, near_chance
from kdexp.experiment.experiment import Experiment


def run_checks(experiment: Experiment) -> Iterator[Finding]:
    """Build an experiment, take a few steps of it and judge what is measured; nothing of the student is kept.

    A teacher that is to be trained and is not in the store yet is trained now, as the run would do, and kept there.

    Args:
        experiment: of a checked configuration.

    Yields:
        Findings as they come.

    Raises:
        ValueError: a value with which the experiment cannot be built.
        FileNotFoundError: data or weights are not where the configuration says.
    """
    config, caught = experiment.config, list[str]()
    with caught_warnings(caught):
        dry_build.dry_build(experiment)
    yield from map(loss_checks.loss_warning, caught)
    data = experiment.data
    classifies = "curves" in data.task.supports
    if classifies:
        yield from data_checks.class_counts(
            data.student.splits, data.task.kind, config.dataset.num_classes, of="pixels" if data.is_dense else "samples"
        )
    yield from training_checks.batch_and_ranks(config.dataset, config.trainer, experiment.new_student(pretrained=None))
    if "texts" not in data.task.supports:
        yield from _inputs(experiment)
    teacher, val = experiment.teacher, data.student.splits.val
    if teacher is not None and teacher.knows("val", val) and near_chance.can_tell(data.task):
        yield teacher_checks.on_val(*near_chance.teacher_on_val(experiment))
    yield _sizes(experiment)
    yield from check_steps(experiment, caught)


def _inputs(experiment: Experiment) -> list[Finding]:
    per_channel = len(experiment.config.dataset.mean) > 1
    student, teachers = input_moments(
        experiment.data.student, experiment.teacher, experiment.device, per_channel=per_channel
    )
    return data_checks.inputs(student.compute(), [moments.compute() for moments in teachers])


def _sizes(experiment: Experiment) -> Finding:
    config, teacher = experiment.config, experiment.teacher
    shape, scheme = list(config.dataset.input_shape), config.scheme.get("name")
    why = "the control" if Identity(config).is_control else f"scheme={scheme}" if scheme else "the loss needs none"
    size = None if teacher is None else network_size(teacher.networks, shape)
    if size is not None and not size.parameters:
        size, why = None, "a file, whose parameters are not counted"
    return training_checks.network_sizes(
        network_size([experiment.student], shape),
        size,
        why_no_teacher=why,
    )
