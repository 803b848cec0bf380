"""Metrics of a trained student on val and test."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from kdexp import results
from kdexp.atomic import sha256
from kdexp.contracts import Outputs
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import deployed, description
from kdexp.experiment.new_metrics import new_curves, new_metrics, of_network
from kdexp.experiment.trained_student import trained_student
from kdexp.metrics.evaluate import Watcher, evaluate
from kdexp.metrics.roc_and_confusion import RocAndConfusion
from kdexp.teacher.teacher import Teacher
from kdexp.training.fit import FitResult
from kdexp.weights import load_weights, save_weights

_Evaluated = Literal["val", "test"]
EVALUATED: tuple[_Evaluated, ...] = ("val", "test")


def evaluate_student(
    experiment: Experiment,
    record: results.Results,
    fitted: FitResult,
    folder: Path,
    splits: Sequence[_Evaluated],
    watchers: Sequence[Watcher] = (),
) -> RocAndConfusion | None:
    """Metrics of the best and of the last epoch on each split, in full precision, by this process alone.

    Args:
        experiment: whose student was trained.
        record: results, added to.
        fitted: what the training left.
        folder: the run folder; gets the weights.
        splits: to evaluate on.
        watchers: of the best epoch on test.

    Returns:
        ROC curves and confusion matrix on test; None when that is not among the splits, and where the task has none.
    """
    teacher, data = experiment.teacher, experiment.data
    student = experiment.new_student().to(fitted.device)
    found: dict[str, dict[str, dict[str, float]]] = {split: {} for split in splits}
    curves = new_curves(data)
    curves = curves.to(fitted.device) if curves is not None else None
    # A frozen teacher gives the same outputs for the last epoch's batches as for the best's: they are computed once.
    outputs: dict[str, list[Outputs]] = {}
    if teacher is not None:
        for split in (one for one in splits if teacher.knows(one, getattr(data.student.splits, one))):
            batches = data.student.eval_batches(split, fitted.device)
            outputs[split] = experiment.teacher_memory.outputs(split, batches, teacher, experiment.cache)
    is_last_best = fitted.best_epoch == fitted.last_epoch
    for which, checkpoint in (("last", fitted.last), ("best", fitted.best))[is_last_best:]:
        load_weights(student, checkpoint, "checkpoint", prefix="student.")
        for split in splits:
            is_shown = (split, which) == ("test", "best")
            found[split][which] = evaluate(
                student,
                data.student.eval_batches(split, fitted.device),
                new_metrics(data, split, fidelity=split in outputs).to(fitted.device),
                teacher=_replaying(outputs[split]) if split in outputs else None,
                curves=curves if is_shown else None,
                watchers=watchers if is_shown else (),
                what=f"student: evaluating the {which} epoch on {split}",
            )
            if is_shown:
                found[split][which] |= of_network(data, student.eval(), fitted.device)
    if is_last_best:
        found = {split: {"last": dict(of["best"]), **of} for split, of in found.items()}
    _measure_peers(experiment, record, fitted.best, folder / "peers", splits)
    record["metrics"] = found
    record["epochs"] |= {
        "best": fitted.best_epoch,
        "last": fitted.last_epoch,
        "monitor": fitted.monitor,
        "value": fitted.best_value,
    }
    _export(experiment, record, student, folder / results.WEIGHTS)  # the best epoch's: loaded last
    if "test" not in splits or curves is None:
        return None
    drawn = curves.compute()
    record["curves"] = drawn.compact()
    return drawn


def _measure_peers(
    experiment: Experiment, record: results.Results, best: Path, folder: Path, splits: Sequence[_Evaluated]
) -> None:
    for name, peer in (experiment.new_peers() if experiment.peers else {}).items():
        load_weights(peer, best, "checkpoint", prefix=f"peers.{name}.")
        record.setdefault("peers", {})[name] = _measure(experiment, peer.to(experiment.device), splits)
        setting, settings = f"scheme.peers.{name}", experiment.peer_settings[name]
        about = description(settings, setting, experiment.config.dataset, [], experiment.data.description)
        save_weights(peer, folder / f"{name}.safetensors", about)


def _export(experiment: Experiment, record: results.Results, student: nn.Module, weights: Path) -> None:
    config = experiment.config
    deployed_by = [loss["_target_"] for loss in config.feature_loss.values() if deployed(loss) is not None]
    about = description(config.student, "student", config.dataset, deployed_by, experiment.data.description)
    save_weights(student, weights, about)
    record["model"] |= {"bytes": weights.stat().st_size, "sha256": sha256(weights)}


def _measure(
    experiment: Experiment, network: Callable[[Tensor], Tensor], splits: Sequence[_Evaluated] = EVALUATED
) -> dict[str, dict[str, float]]:
    data, place = experiment.data, experiment.device
    return {
        split: evaluate(
            network,
            data.student.eval_batches(split, place),
            new_metrics(data, split).to(place),
        )
        for split in splits
    }


def ensemble(experiment: Experiment, folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Metrics on val and test of the mean of several finished runs' probabilities (at T = 1).

    Args:
        experiment: that of the runs.
        folders: with a student.safetensors each, all of one architecture.
    """
    networks = [trained_student(experiment, folder / results.WEIGHTS, "scheme") for folder in folders]
    data = experiment.data
    average = Teacher(networks, kind=data.task.kind, dense=data.is_dense).to(experiment.device)
    return _measure(experiment, lambda inputs: average(inputs).logits)


def _replaying(outputs: list[Outputs]) -> Callable[[Tensor], Outputs]:
    each = iter(outputs)
    return lambda inputs: next(each)
