"""What comes before a training: all that it needs is made, and what makes no sense is refused."""

import logging
from pathlib import Path

from kdexp.config.identity import with_class_names
from kdexp.experiment import dry_build, near_chance, teacher_measures
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.ranks import rank
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.experiment.run_cost import timed
from kdexp.models.complexity import macs, parameters
from kdexp.results import Results
from kdexp.training.auto_compile import compile_in_place, pays
from kdexp.training.checkpoints import refuse_foreign

log = logging.getLogger(__name__)


def prepare(
    experiment: Experiment, folder: Path, record: Results, *, owner: str, is_measured: bool
) -> RobustnessEvaluator | None:
    """Make everything that the training needs, and refuse what makes no sense before anything is trained.

    Args:
        experiment: the run's.
        folder: the run folder.
        record: results, added to.
        owner: identifies the training, see `kdexp.training.checkpoints.refuse_foreign`.
        is_measured: whether the robustness is measured at the end, where conf/robustness says so.

    Returns:
        What measures the robustness; None where it is not measured.

    Raises:
        ValueError: a setting that does not fit the data or the networks, or checkpoints of another run in the folder.
        FileNotFoundError: data or weights are not where the settings say.
    """
    refuse_foreign(folder / "checkpoints", owner)
    config = experiment.config
    seconds: dict[str, float] = {}
    record["cost"] = {"seconds": seconds}
    dry_build.refuse_to_fetch(experiment, folder / "checkpoints")
    dry_build.dry_build(experiment)
    with timed(seconds, "data"):
        data = experiment.data
    record["data_content"] = data.content
    if data.classes is not None and config.dataset.classes is None:
        record["config"]["dataset"] = with_class_names(record["config"]["dataset"], data.classes)
    evaluator = None
    if config.robustness and is_measured:
        evaluator = RobustnessEvaluator(experiment, experiment.device)
    dry_build.refuse_undefined_monitor(experiment)
    dry_build.refuse_single_samples(experiment)
    record["samples"] = {name: len(getattr(data.student.splits, name)) for name in ("train", "val", "test")}
    record["samples_of_group"] = data.samples_of_group
    with timed(seconds, "teacher"):
        if experiment.teacher is not None and rank() == 0:
            measured = teacher_measures.teacher_measures(experiment)
            missing = [split for split in ("val", "test") if split not in measured]
            if missing:
                log.info("teacher: no outputs of all samples of %s: nothing is compared there", " and ".join(missing))
            else:
                record["teacher"] = measured
            if "val" in measured and near_chance.can_tell(data.task) and not config.quick:  # no wonder there
                found, advice = near_chance.teacher_on_val(experiment)
                if advice:
                    log.warning("warning: the teacher is near chance on val: %s: %s", found, advice)
    student = experiment.student
    record["model"] = {"parameters": parameters(student), "macs": macs(student, list(config.dataset.input_shape))}
    if config.trainer.compile:
        _compile(experiment)
    return evaluator


def _compile(experiment: Experiment) -> None:
    config, teacher, student = experiment.config, experiment.teacher, experiment.student
    # A teacher whose outputs are cached is hardly run; an ONNX file is no module of PyTorch's.
    is_run = teacher is not None and config.teacher.cache == "none"
    teachers = [network for network in teacher.networks if parameters(network)] if teacher and is_run else []
    networks = [student, *teachers]
    if config.trainer.compile == "auto":
        module, place = experiment.data.student, experiment.device
        batch = next(iter(module.eval_batches("train", place))).inputs[: config.dataset.batch_size]
        steps = experiment.epochs * module.train_batches
        for network in networks:
            network.to(place)
        if not pays(student, teachers, batch, steps):
            return
    compile_in_place(networks)
