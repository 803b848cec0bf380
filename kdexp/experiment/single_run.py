"""One training: from the data to results.json."""

import copy
import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp import recording
from kdexp.config.compose import plain
from kdexp.config.identity import with_class_names
from kdexp.experiment import dry_build, teacher_measures
from kdexp.experiment.data import Data, refuse_undefined_monitor
from kdexp.experiment.distillers import build_distiller
from kdexp.experiment.evaluation import EVALUATED, evaluate_student
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.networks import (
    build_student,
    device_for,
)
from kdexp.experiment.parts import Parts
from kdexp.experiment.ranks import rank
from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
from kdexp.experiment.robustness_report import run_subject, subjects
from kdexp.experiment.run_tracking import begin_tracking, final
from kdexp.models.complexity import macs, parameters
from kdexp.report.png_figures.run import draw_run
from kdexp.report.robustness_terminal import show
from kdexp.report.runs import control_folder, find_control
from kdexp.teacher.teacher import Teacher
from kdexp.training.auto_compile import compile_in_place, pays
from kdexp.training.checkpoints import refuse_foreign
from kdexp.training.fit import Fitted, Judge, Pruned, fit

log = logging.getLogger(__name__)

_TRAINER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "max_epochs",
    "limit_train_batches",
    "limit_val_batches",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "sync_batchnorm",
    "log_every_n_steps",
)


def distill(
    config: Any,
    folder: Path,
    record: dict[str, Any],
    parts: Parts | None = None,
    judge: Judge | None = None,
    owner: str | None = None,
) -> None:
    """Train, evaluate, export and draw; every rank calls it, rank 0 alone evaluates and writes.

    Args:
        config: a checked configuration.
        folder: the run folder.
        record: results, added to as they come, so that a failure keeps what was there before it.
        parts: what is shared with other runs; None: nothing.
        judge: of a trial of a search: it may end the training, and the test split is left alone.
        owner: identifies the training, see `kdexp.training.checkpoints.refuse_foreign`; None: the run's fingerprint
            does.

    Raises:
        ValueError: a setting that does not fit the data or the networks, or checkpoints of another run in the folder.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: see `kdexp.training.fit.fit`.
    """
    owner = owner or str(record["fingerprint"])
    refuse_foreign(folder / "checkpoints", owner)
    parts = parts or Parts()
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    seconds: dict[str, float] = {}
    record["cost"] = {"seconds": seconds}
    dry_build.refuse_to_fetch(config, folder / "checkpoints")
    dry_build.dry_build(config)
    with _timed(seconds, "data"):
        data = parts.data(config)
    record["data_content"] = data.content
    if data.classes is not None and config.dataset.classes is None:
        record["config"] = with_class_names(record["config"], data.classes)
    evaluator = None
    if config.robustness and rank() == 0 and judge is None:
        # Now, so that settings that make no sense are refused before anything is trained.
        evaluator = RobustnessEvaluator(config, data, device_for(config.trainer.accelerator))
    refuse_undefined_monitor(config, data)
    dry_build.refuse_single_samples(config, data)
    splits = data.student.splits
    record["samples"] = {name: len(getattr(splits, name)) for name in ("train", *EVALUATED)}
    with _timed(seconds, "teacher"):
        frozen = parts.teacher(config, data)
        if frozen is not None and rank() == 0:
            record["teacher"] = teacher_measures.teacher_measures(config, frozen, data)
            found, advice = teacher_measures.near_chance(*teacher_measures.teacher_on_val(config, frozen, data))
            if advice and not config.quick:  # no wonder there
                log.warning("warning: the teacher is near chance on val: %s: %s", found, advice)
    learner = build_student(config, frozen)
    record["model"] = {"parameters": parameters(learner), "macs": macs(learner, list(config.dataset.input_shape))}
    if config.trainer.compile:
        _compile(config, learner, frozen, data)
    module = build_distiller(config, learner, frozen, data)
    module.cache, module.teacher_on_val = parts.cache(config, frozen, data), parts.on_val()
    settings = {key: value for key, value in plain(config.trainer).items() if key in _TRAINER_KEYS}
    several = settings["strategy"] == "ddp" or (
        settings["strategy"] == "auto" and settings["devices"] not in (1, "auto")
    )
    if several and any(loss.get("alone") for loss in config.feature_loss.values()):
        # While a term trains alone, what the others train has no gradient, and DDP would wait for it.
        settings["strategy"] = "ddp_find_unused_parameters_true"
    if rank() != 0:
        fit(module, parts.batches(data), folder, settings, owner=owner, judge=judge)
        return
    tracker = begin_tracking(config, folder, record)
    try:
        with _timed(seconds, "fit"):
            fitted = fit(
                module,
                parts.batches(data),
                folder,
                settings,
                owner=owner,
                loggers=tracker.loggers,
                judge=judge,
            )
        _cost(record, fitted, len(splits.train))
        record["cost"] |= parts.cost()
        with _timed(seconds, "evaluation"):
            evaluated = EVALUATED if judge is None else EVALUATED[:1]
            curves = evaluate_student(config, record, module, fitted, frozen, data, parts, folder, evaluated)
        if curves is not None:
            with _timed(seconds, "figures"):
                names = data.classes or list(map(str, range(config.dataset.num_classes)))
                draw_run(fitted.epochs, curves, names, folder / "figures")
            control = find_control(record, folder.parent)
            tracker.summarize(final(record, control), curves, names)
            record["tracking"]["control"] = control["wandb_id"] if control is not None else None
        if evaluator is not None:
            with _timed(seconds, "robustness"):
                report = _robustness(evaluator, config, record, frozen, folder)
            tracker.robustness(report)
    except BaseException as error:
        tracker.finish(0 if isinstance(error, Pruned) else 1)
        raise
    tracker.finish(0)


def train_control(config: Any, folder: Path) -> None:
    """Train a run's control in a run folder of its own: the same student, data, recipe and seed, without a teacher.

    Args:
        config: that of the run.
        folder: of the control.
    """
    config = _alone(config)
    config.output_dir, config.robustness = str(folder), {}
    with recording.recording(folder, run_metadata(plain(config), ["alpha=1"], {})) as record:
        distill(config, folder, record)


def _alone(config: Any) -> Any:
    """The configuration of a run's control."""
    config = copy.deepcopy(config)
    config.alpha, config.alpha_schedule.kind, config.alpha_schedule.final = 1.0, "constant", None
    config.feature_loss, config.scheme = {}, {}
    return config


def _robustness(
    evaluator: RobustnessEvaluator, config: Any, record: Mapping[str, Any], frozen: Teacher | None, folder: Path
) -> dict[str, Any]:
    """The robustness of the run that has just been trained; next to its control when that is there already."""
    device = device_for(config.trainer.accelerator)
    own, control = run_subject(config, folder, device), None
    if not record["is_control"]:
        found = control_folder(record, folder.parent)
        if found is None:
            evaluator.notes.append("no control (alpha=1) is there yet: kdexp-eval compares with it later")
        else:
            try:
                control = run_subject(_alone(config), found, device)
            except (OSError, ValueError) as error:
                evaluator.notes.append(f"the control in {found} cannot be read: {error}")
    compared = subjects(config, own, device, is_control=record["is_control"], control=control, frozen=frozen)
    report = evaluator.report(compared, folder)
    show(report, folder)
    return report


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started


def _compile(config: Any, learner: nn.Module, frozen: Teacher | None, data: Data) -> None:
    # A teacher whose answers are kept is hardly asked.
    asked = frozen.networks if frozen is not None and config.teacher.cache == "none" else []
    networks = [learner, *asked]
    if config.trainer.compile == "auto":
        place = device_for(config.trainer.accelerator)
        batch = next(iter(data.student.eval_batches("train", place))).inputs[: config.dataset.batch_size]
        steps = config.trainer.max_epochs * len(data.student.splits.train) // config.dataset.batch_size
        for network in networks:
            network.to(place)
        if not pays(learner, asked, batch, steps):
            return
    compile_in_place(networks)


def _cost(record: dict[str, Any], fitted: Fitted, samples: int) -> None:
    record["cost"]["samples_per_second"] = samples * len(fitted.seconds) / max(sum(fitted.seconds), 1e-9)
    if fitted.device.type == "cuda":
        record["cost"]["peak_memory_bytes"] = torch.cuda.max_memory_allocated(fitted.device)
    else:  # ru_maxrss is in KiB on Linux and in bytes on macOS; it is the whole process's
        unit = 1 if sys.platform == "darwin" else 1024
        record["cost"]["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
