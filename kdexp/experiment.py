"""One experiment from data to results: what `kdexp.train.run` does once the configuration is known to be sound."""

import copy
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdexp import assemble, launch, results
from kdexp.atomic import sha256
from kdexp.compiling import compile_in_place, pays
from kdexp.config import MOST_OF_TAG, plain, with_class_names
from kdexp.contracts import Batch, Outputs
from kdexp.distiller import Distiller
from kdexp.fit import Fitted, Judge, Pruned, fit, refuse_foreign
from kdexp.metrics import CurveData, evaluate
from kdexp.models.cost import macs, parameters
from kdexp.naming import job_names
from kdexp.online import MutualDistiller
from kdexp.pace import paced
from kdexp.report.png_figures.run import draw_run
from kdexp.report.robustness_terminal import show
from kdexp.report.runs import control_folder, find_control
from kdexp.robustness_evaluator import RobustnessEvaluator
from kdexp.robustness_report import run_subject, subjects
from kdexp.sweep import cells
from kdexp.teacher import Teacher
from kdexp.teacher_cache import Cache, SplitName
from kdexp.tracking import Tracker
from kdexp.weights import load_weights, save_weights

log = logging.getLogger(__name__)

_TRAINER_KEYS = (
    "accelerator", "devices", "num_nodes", "strategy", "precision", "max_epochs", "limit_train_batches",
    "limit_val_batches", "accumulate_grad_batches", "gradient_clip_val", "sync_batchnorm", "log_every_n_steps",
)  # fmt: skip

_LONGEST_NAME = 128
"""W&B refuses longer names of runs."""

_Evaluated = Literal["val", "test"]
_EVALUATED: tuple[_Evaluated, ...] = ("val", "test")


class Parts:
    """What a run needs that it might have in common with others in its process (`kdexp.fused`); here, its own."""

    def data(self, config: Any) -> assemble.Data:
        """The data set, loaded."""
        return assemble.Data(config)

    def teacher(self, config: Any, data: assemble.Data) -> Teacher | None:
        """The teacher, trained; None for a control."""
        return assemble.teacher(config, data)

    def cache(self, config: Any, frozen: Teacher | None, data: assemble.Data) -> Cache | None:
        """The teacher's kept answers, where they are to be kept."""
        return assemble.teacher_cache(config, frozen, data)

    def on_val(self) -> list[Outputs]:
        """See `Distiller.teacher_on_val`."""
        return []

    def answers(self, split: SplitName, ask: Callable[[], list[Outputs]]) -> list[Outputs]:
        """The teacher's answers (at T = 1) to the batches of a split in their fixed order, of which it is asked."""
        return ask()

    def cost(self) -> dict[str, Any]:
        """What there is to say of the run's cost."""
        return {}

    def batches(self, data: assemble.Data) -> pl.LightningDataModule:
        """What the Trainer is given."""
        return data.student


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
        owner: identifies the training, see `kdexp.fit.refuse_foreign`; None: the run's fingerprint does.

    Raises:
        ValueError: a setting that does not fit the data or the networks, or checkpoints of another run in the folder.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: see `kdexp.fit.fit`.
    """
    owner = owner or str(record["fingerprint"])
    refuse_foreign(folder / "checkpoints", owner)
    parts = parts or Parts()
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    seconds: dict[str, float] = {}
    record["cost"] = {"seconds": seconds}
    assemble.refuse_to_fetch(config, folder / "checkpoints")
    assemble.rehearse(config)
    with _timed(seconds, "data"):
        data = parts.data(config)
    record["data_content"] = data.content
    if data.classes is not None and config.dataset.classes is None:
        record["config"] = with_class_names(record["config"], data.classes)
    evaluator = None
    if config.robustness and launch.rank() == 0 and judge is None:
        # Now, so that settings that make no sense are refused before anything is trained.
        evaluator = RobustnessEvaluator(config, data, assemble.device(config.trainer.accelerator))
    assemble.refuse_undefined_monitor(config, data)
    assemble.refuse_single_samples(config, data)
    splits = data.student.splits
    record["samples"] = {name: len(getattr(splits, name)) for name in ("train", *_EVALUATED)}
    with _timed(seconds, "teacher"):
        frozen = parts.teacher(config, data)
        if frozen is not None and launch.rank() == 0:
            record["teacher"] = assemble.teacher_measures(config, frozen, data)
            found, advice = assemble.near_chance(*assemble.teacher_on_val(config, frozen, data))
            if advice and not config.quick:  # no wonder there
                log.warning("warning: the teacher is near chance on val: %s: %s", found, advice)
    learner = assemble.student(config, frozen)
    record["model"] = {"parameters": parameters(learner), "macs": macs(learner, list(config.dataset.input_shape))}
    if config.trainer.compile:
        _compile(config, learner, frozen, data)
    module = assemble.distiller(config, learner, frozen, data)
    module.cache, module.teacher_on_val = parts.cache(config, frozen, data), parts.on_val()
    settings = {key: value for key, value in plain(config.trainer).items() if key in _TRAINER_KEYS}
    several = settings["strategy"] == "ddp" or (
        settings["strategy"] == "auto" and settings["devices"] not in (1, "auto")
    )
    if several and any(loss.get("alone") for loss in config.feature_loss.values()):
        # While a term trains alone, what the others train has no gradient, and DDP would wait for it.
        settings["strategy"] = "ddp_find_unused_parameters_true"
    if launch.rank() != 0:
        fit(module, parts.batches(data), folder, settings, owner=owner, judge=judge)
        return
    tracker = _tracker(config, folder, record)
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
            evaluated = _EVALUATED if judge is None else _EVALUATED[:1]
            curves = _evaluate(config, record, module, fitted, frozen, data, parts, folder, evaluated)
        if curves is not None:
            with _timed(seconds, "figures"):
                names = data.classes or list(map(str, range(config.dataset.num_classes)))
                draw_run(fitted.epochs, curves, names, folder / "figures")
            control = find_control(record, folder.parent)
            tracker.summarize(_final(record, control), curves, names)
            record["tracking"]["control"] = control["wandb_id"] if control is not None else None
        if evaluator is not None:
            with _timed(seconds, "robustness"):
                report = _robustness(evaluator, config, record, frozen, folder)
            tracker.robustness(report)
    except BaseException as error:
        tracker.finish(0 if isinstance(error, Pruned) else 1)
        raise
    tracker.finish(0)


def distill_alone(config: Any, folder: Path) -> None:
    """Train a run's control in a run folder of its own: the same student, data, recipe and seed, without a teacher.

    Args:
        config: that of the run.
        folder: of the control.
    """
    config = _alone(config)
    config.output_dir, config.robustness = str(folder), {}
    with results.recording(folder, launch.facts(plain(config), ["alpha=1"], {})) as record:
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
    device = assemble.device(config.trainer.accelerator)
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


def track_robustness(config: Any, folder: Path, saved: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Add a robustness report to the W&B run of a finished run, if it has one."""
    if saved.get("tracking", {}).get("tool") == "wandb" and saved["tracking"]["location"]:
        tracker = _tracker(config, folder, dict(saved))
        tracker.robustness(report)
        tracker.finish(0)


def track_gain(config: Any, folder: Path, saved: Mapping[str, Any], control: Mapping[str, Any]) -> None:
    """Add to the tracker of a finished run what it gained over its control, which was not done then."""
    tracker = _tracker(config, folder, dict(saved))
    tracker.add(_gain(saved, control))
    tracker.finish(0)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started


def _compile(config: Any, learner: nn.Module, frozen: Teacher | None, data: assemble.Data) -> None:
    # A teacher whose answers are kept is hardly asked.
    asked = frozen.networks if frozen is not None and config.teacher.cache == "none" else []
    networks = [learner, *asked]
    if config.trainer.compile == "auto":
        place = assemble.device(config.trainer.accelerator)
        batch = next(iter(data.student.eval_batches("train", place))).inputs[: config.dataset.batch_size]
        steps = config.trainer.max_epochs * len(data.student.splits.train) // config.dataset.batch_size
        for network in networks:
            network.to(place)
        if not pays(learner, asked, batch, steps):
            return
    compile_in_place(networks)


def _tracker(config: Any, folder: Path, record: dict[str, Any]) -> Tracker:
    choices, tracking = plain(config.choices), plain(config.tracking)
    kind = "control" if record["is_control"] else "distill"
    settings = tracking | {
        "group": tracking["group"] or (Path(config.sweep_dir).name if config.sweep_dir else None),
        "job_type": kind,
        "name": (tracking["name"] or _run_name(config, record["overrides"]) or kind)[:_LONGEST_NAME],
        "tags": list(dict.fromkeys([*tracking["tags"], *(option[:MOST_OF_TAG] for option in choices.values())])),
    }
    shown = {key: value for key, value in record["config"].items() if key not in ("tracking", "choices")}
    # The chosen options as flat words: columns to group and filter by. The groups' own values stand beside them.
    flat = {f"{group}_name": option for group, option in choices.items()} | {"is_control": record["is_control"]}
    flat["versions"] = record["versions"]
    tracker = Tracker(settings, folder, shown | flat, record["wandb_id"])
    record["tracking"] = {"tool": tracking["tool"], "location": tracker.location, "group": settings["group"]}
    return tracker


def _run_name(config: Any, overrides: Sequence[str]) -> str:
    """Of a job in a sweep what it differs in from the others; of another run all that was overridden."""
    among = cells(Path(config.sweep_dir)) if config.sweep_dir else []
    if list(overrides) not in among:
        return " ".join(overrides)
    return job_names(among, _LONGEST_NAME)[among.index(list(overrides))]


def _cost(record: dict[str, Any], fitted: Fitted, samples: int) -> None:
    record["cost"]["samples_per_second"] = samples * len(fitted.seconds) / max(sum(fitted.seconds), 1e-9)
    if fitted.device.type == "cuda":
        record["cost"]["peak_memory_bytes"] = torch.cuda.max_memory_allocated(fitted.device)
    else:  # ru_maxrss is in KiB on Linux and in bytes on macOS; it is the whole process's
        unit = 1 if sys.platform == "darwin" else 1024
        record["cost"]["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _evaluate(
    config: Any,
    record: dict[str, Any],
    module: Distiller,
    fitted: Fitted,
    frozen: Teacher | None,
    data: assemble.Data,
    parts: Parts,
    folder: Path,
    splits: Sequence[_Evaluated],
) -> CurveData | None:
    """Metrics of the best and of the last epoch on each split, in full precision, by this process alone.

    Returns:
        ROC curves and confusion matrix on test; None when that is not among the splits.
    """
    learner = assemble.student(config, pretrained=False).to(fitted.device)
    found: dict[str, dict[str, dict[str, float]]] = {split: {} for split in splits}
    curves = assemble.curves(config, data.student).to(fitted.device)
    # A frozen teacher says the same of the last epoch's batches as of the best's: it is asked once.
    answers: dict[str, list[Outputs]] = {}
    if frozen is not None:
        for split in splits:
            batches = data.student.eval_batches(split, fitted.device)
            answers[split] = parts.answers(split, partial(_ask, split, batches, frozen, module.cache))
    for which, checkpoint in (("last", fitted.last), ("best", fitted.best)):
        load_weights(learner, checkpoint, "checkpoint", prefix="student.")
        for split in splits:
            found[split][which] = evaluate(
                learner,
                data.student.eval_batches(split, fitted.device),
                assemble.metrics(config, data.student, split, fidelity=frozen is not None).to(fitted.device),
                teacher=_replaying(answers[split]) if frozen is not None else None,
                curves=curves if (split, which) == ("test", "best") else None,
                what=f"student: evaluating the {which} epoch on {split}",
            )
    for name, peer in (assemble.peers(config) if isinstance(module, MutualDistiller) else {}).items():
        load_weights(peer, fitted.best, "checkpoint", prefix=f"peers.{name}.")
        record.setdefault("peers", {})[name] = _measure(config, peer.to(fitted.device), data, splits)
        settings = assemble.peer_settings(config)[name]
        about = assemble.description(config, f"scheme.peers.{name}", settings, data.classes)
        save_weights(peer, folder / "peers" / f"{name}.safetensors", about)
    record["metrics"] = found
    record["epochs"] = {
        "best": fitted.best_epoch,
        "last": fitted.last_epoch,
        "monitor": fitted.monitor,
        "value": fitted.best_value,
    }
    weights = folder / results.WEIGHTS
    about = assemble.description(config, "student", config.student, data.classes)
    save_weights(learner, weights, about)  # the best epoch's: loaded last
    record["model"] |= {"bytes": weights.stat().st_size, "sha256": sha256(weights)}
    if "test" not in splits:
        return None
    drawn = curves.compute()
    record["curves"] = drawn.compact()
    return drawn


def _ask(split: SplitName, batches: Iterable[Batch], frozen: Teacher, cache: Cache | None) -> list[Outputs]:
    if cache is None:
        return [frozen(batch.inputs) for batch in paced(batches, f"teacher: logits of {split}")]
    cache.prepare(split)
    return [cache(split, batch.index, 1.0) for batch in batches]


def _measure(
    config: Any, network: Callable[[Tensor], Tensor], data: assemble.Data, splits: Sequence[_Evaluated] = _EVALUATED
) -> dict[str, dict[str, float]]:
    place = assemble.device(config.trainer.accelerator)
    return {
        split: evaluate(
            network,
            data.student.eval_batches(split, place),
            assemble.metrics(config, data.student, split).to(place),
        )
        for split in splits
    }


def ensemble(config: Any, folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Metrics on val and test of the mean of several finished runs' probabilities (at T = 1).

    Args:
        config: that of the runs.
        folders: with a student.safetensors each, all of one architecture.
    """
    networks = [assemble.trained_student(config, folder / results.WEIGHTS, "scheme") for folder in folders]
    average = Teacher(networks, task=config.dataset.task).to(assemble.device(config.trainer.accelerator))
    return _measure(config, lambda inputs: average(inputs).logits, assemble.Data(config))


def _replaying(answers: list[Outputs]) -> Callable[[Tensor], Outputs]:
    replies = iter(answers)
    return lambda inputs: next(replies)


def _final(record: Mapping[str, Any], control: Mapping[str, Any] | None) -> dict[str, float]:
    """``test/acc`` (best epoch by validation), ``test_last/acc``, ``teacher/test/acc``, ... for the tracker's summary.

    Where the control of this seed is done already, what `_gain` says, too.
    """
    metrics = record["metrics"]
    flat = {f"test/{name}": value for name, value in metrics["test"]["best"].items()}
    flat |= {f"test_last/{name}": value for name, value in metrics["test"]["last"].items()}
    flat |= {f"teacher/test/{name}": value for name, value in record.get("teacher", {}).get("test", {}).items()}
    return flat | (_gain(record, control) if control is not None and not record["is_control"] else {})


def _gain(record: Mapping[str, Any], control: Mapping[str, Any]) -> dict[str, float]:
    """``control/test/acc``, ... and ``gain/acc``, ...: the run's test metrics less its control's."""
    own, alone = (run["metrics"]["test"]["best"] for run in (record, control))
    known = {name: value for name, value in alone.items() if None not in (value, own.get(name))}
    return {f"control/test/{name}": value for name, value in alone.items()} | {
        f"gain/{name}": own[name] - value for name, value in known.items()
    }
