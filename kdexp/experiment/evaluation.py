"""Metrics of a trained student on val and test."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from kdexp import results
from kdexp.atomic import sha256
from kdexp.contracts import Batch, Outputs
from kdexp.experiment.data import Data, new_curves, new_metrics
from kdexp.experiment.networks import (
    build_peers,
    build_student,
    description,
    device_for,
    peer_settings,
    trained_student,
)
from kdexp.experiment.parts import Parts
from kdexp.metrics.evaluate import evaluate
from kdexp.metrics.roc import CurveData
from kdexp.pace import paced
from kdexp.schemes.online import MutualDistiller
from kdexp.teacher.cached_outputs import SplitName, TeacherOutputCache
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller
from kdexp.training.fit import Fitted
from kdexp.weights import load_weights, save_weights

_Evaluated = Literal["val", "test"]
EVALUATED: tuple[_Evaluated, ...] = ("val", "test")


def evaluate_student(
    config: Any,
    record: dict[str, Any],
    module: Distiller,
    fitted: Fitted,
    frozen: Teacher | None,
    data: Data,
    parts: Parts,
    folder: Path,
    splits: Sequence[_Evaluated],
) -> CurveData | None:
    """Metrics of the best and of the last epoch on each split, in full precision, by this process alone.

    Returns:
        ROC curves and confusion matrix on test; None when that is not among the splits.
    """
    learner = build_student(config, pretrained=False).to(fitted.device)
    found: dict[str, dict[str, dict[str, float]]] = {split: {} for split in splits}
    curves = new_curves(config, data.student).to(fitted.device)
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
                new_metrics(config, data.student, split, fidelity=frozen is not None).to(fitted.device),
                teacher=_replaying(answers[split]) if frozen is not None else None,
                curves=curves if (split, which) == ("test", "best") else None,
                what=f"student: evaluating the {which} epoch on {split}",
            )
    for name, peer in (build_peers(config) if isinstance(module, MutualDistiller) else {}).items():
        load_weights(peer, fitted.best, "checkpoint", prefix=f"peers.{name}.")
        record.setdefault("peers", {})[name] = _measure(config, peer.to(fitted.device), data, splits)
        settings = peer_settings(config)[name]
        about = description(config, f"scheme.peers.{name}", settings, data.classes)
        save_weights(peer, folder / "peers" / f"{name}.safetensors", about)
    record["metrics"] = found
    record["epochs"] = {
        "best": fitted.best_epoch,
        "last": fitted.last_epoch,
        "monitor": fitted.monitor,
        "value": fitted.best_value,
    }
    weights = folder / results.WEIGHTS
    about = description(config, "student", config.student, data.classes)
    save_weights(learner, weights, about)  # the best epoch's: loaded last
    record["model"] |= {"bytes": weights.stat().st_size, "sha256": sha256(weights)}
    if "test" not in splits:
        return None
    drawn = curves.compute()
    record["curves"] = drawn.compact()
    return drawn


def _ask(
    split: SplitName, batches: Iterable[Batch], frozen: Teacher, cache: TeacherOutputCache | None
) -> list[Outputs]:
    if cache is None:
        return [frozen(batch.inputs) for batch in paced(batches, f"teacher: logits of {split}")]
    cache.prepare(split)
    return [cache(split, batch.index, 1.0) for batch in batches]


def _measure(
    config: Any, network: Callable[[Tensor], Tensor], data: Data, splits: Sequence[_Evaluated] = EVALUATED
) -> dict[str, dict[str, float]]:
    place = device_for(config.trainer.accelerator)
    return {
        split: evaluate(
            network,
            data.student.eval_batches(split, place),
            new_metrics(config, data.student, split).to(place),
        )
        for split in splits
    }


def ensemble(config: Any, folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Metrics on val and test of the mean of several finished runs' probabilities (at T = 1).

    Args:
        config: that of the runs.
        folders: with a student.safetensors each, all of one architecture.
    """
    networks = [trained_student(config, folder / results.WEIGHTS, "scheme") for folder in folders]
    average = Teacher(networks, task=config.dataset.task).to(device_for(config.trainer.accelerator))
    return _measure(config, lambda inputs: average(inputs).logits, Data(config))


def _replaying(answers: list[Outputs]) -> Callable[[Tensor], Outputs]:
    replies = iter(answers)
    return lambda inputs: next(replies)
