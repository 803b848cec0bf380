"""One training: from the data to results.json."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdexp.config.identity import with_class_names
from kdexp.experiment import dry_build, teacher_measures
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.ranks import rank
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.experiment.robustness_report import run_subject, subjects
from kdexp.experiment.run_tracking import begin_tracking, final
from kdexp.experiment.student_evaluation import EVALUATED, evaluate_student
from kdexp.experiment.trainer_settings import trainer_settings
from kdexp.models.complexity import macs, parameters
from kdexp.report.png_figures.run import draw_run
from kdexp.report.robustness_terminal import show
from kdexp.report.runs import control_folder, find_control
from kdexp.results import Record, Results
from kdexp.training.auto_compile import compile_in_place, pays
from kdexp.training.checkpoints import refuse_foreign
from kdexp.training.fit import FitResult, Pruner, TrialPruned, fit, peak_memory

log = logging.getLogger(__name__)


def distill(
    experiment: Experiment,
    folder: Path,
    record: Results,
    pruner: Pruner | None = None,
    owner: str | None = None,
) -> None:
    """Train, evaluate, export and draw; every rank calls it, rank 0 alone evaluates and writes.

    Args:
        experiment: of a checked configuration.
        folder: the run folder.
        record: results, added to as they come, so that a failure keeps what was there before it.
        pruner: of a trial of a search: it may end the training, and the test split is left alone.
        owner: identifies the training, see `kdexp.training.checkpoints.refuse_foreign`; None: the run's fingerprint
            does.

    Raises:
        ValueError: a setting that does not fit the data or the networks, or checkpoints of another run in the folder.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: see `kdexp.training.fit.fit`.
    """
    owner = owner or str(record["fingerprint"])
    refuse_foreign(folder / "checkpoints", owner)
    evaluator = _prepare(experiment, folder, record, is_measured=rank() == 0 and pruner is None)
    config = experiment.config
    module, settings = experiment.distiller, trainer_settings(config.trainer, config.feature_loss)
    module.cache, module.teacher_on_val = experiment.cache, experiment.teacher_memory.on_val
    if rank() != 0:
        fit(module, experiment.batches, folder, settings, owner=owner, pruner=pruner)
        return
    seconds = record["cost"]["seconds"]
    tracker = begin_tracking(experiment.values["tracking"], folder, record)
    try:
        with _timed(seconds, "fit"):
            fitted = fit(
                module, experiment.batches, folder, settings, owner=owner, loggers=tracker.loggers, pruner=pruner
            )
        _cost(record, fitted, len(experiment.data.student.splits.train))
        record["cost"] |= experiment.cost()
        with _timed(seconds, "evaluation"):
            curves = evaluate_student(experiment, record, fitted, folder, EVALUATED[: 2 if pruner is None else 1])
        if curves is not None:
            with _timed(seconds, "figures"):
                names = experiment.data.classes or list(map(str, range(config.dataset.num_classes)))
                draw_run(fitted.epochs, experiment.data.task.measure, curves, names, folder / "figures")
            control = find_control(record, folder.parent)
            tracker.summarize(final(record, control), curves, names)
            record["tracking"]["control"] = control["wandb_id"] if control is not None else None
        if evaluator is not None:
            with _timed(seconds, "robustness"):
                report = _robustness(evaluator, experiment, record, folder)
            tracker.robustness(report)
    except BaseException as error:
        tracker.finish(0 if isinstance(error, TrialPruned) else 1)
        raise
    tracker.finish(0)


def _prepare(experiment: Experiment, folder: Path, record: Results, *, is_measured: bool) -> RobustnessEvaluator | None:
    """Make everything that the training needs, and refuse what makes no sense before anything is trained.

    Args:
        experiment: the run's.
        folder: the run folder.
        record: results, added to.
        is_measured: whether the robustness is measured at the end, where conf/robustness says so.

    Returns:
        What measures the robustness; None where it is not measured.
    """
    config = experiment.config
    seconds: dict[str, float] = {}
    record["cost"] = {"seconds": seconds}
    dry_build.refuse_to_fetch(experiment, folder / "checkpoints")
    dry_build.dry_build(experiment)
    with _timed(seconds, "data"):
        data = experiment.data
    record["data_content"] = data.content
    if data.classes is not None and config.dataset.classes is None:
        record["config"]["dataset"] = with_class_names(record["config"]["dataset"], data.classes)
    evaluator = None
    if config.robustness and is_measured:
        evaluator = RobustnessEvaluator(experiment, experiment.device)
    dry_build.refuse_undefined_monitor(experiment)
    dry_build.refuse_single_samples(experiment)
    record["samples"] = {name: len(getattr(data.student.splits, name)) for name in ("train", *EVALUATED)}
    with _timed(seconds, "teacher"):
        if experiment.teacher is not None and rank() == 0:
            record["teacher"] = teacher_measures.teacher_measures(experiment)
            found, advice = teacher_measures.near_chance(*teacher_measures.teacher_on_val(experiment))
            if advice and not config.quick:  # no wonder there
                log.warning("warning: the teacher is near chance on val: %s: %s", found, advice)
    student = experiment.student
    record["model"] = {"parameters": parameters(student), "macs": macs(student, list(config.dataset.input_shape))}
    if config.trainer.compile:
        _compile(experiment)
    return evaluator


def _robustness(evaluator: RobustnessEvaluator, experiment: Experiment, record: Record, folder: Path) -> Record:
    """The robustness of the run that has just been trained; next to its control when that is there already."""
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


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started


def _compile(experiment: Experiment) -> None:
    config, teacher, student = experiment.config, experiment.teacher, experiment.student
    # A teacher whose outputs are cached is hardly run.
    teachers = teacher.networks if teacher is not None and config.teacher.cache == "none" else []
    networks = [student, *teachers]
    if config.trainer.compile == "auto":
        module, place = experiment.data.student, experiment.device
        batch = next(iter(module.eval_batches("train", place))).inputs[: config.dataset.batch_size]
        steps = config.trainer.max_epochs * len(module.splits.train) // config.dataset.batch_size
        for network in networks:
            network.to(place)
        if not pays(student, teachers, batch, steps):
            return
    compile_in_place(networks)


def _cost(record: Results, fitted: FitResult, samples: int) -> None:
    record["cost"]["samples_per_second"] = samples * len(fitted.seconds) / max(sum(fitted.seconds), 1e-9)
    record["cost"]["peak_memory_bytes"] = peak_memory(fitted.device)
