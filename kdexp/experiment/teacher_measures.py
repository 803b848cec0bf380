"""What a teacher itself can do, measured once."""

import json
import logging
from pathlib import Path
from typing import Literal

from kdexp.atomic import atomic_path, read_json
from kdexp.config import quick
from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.keys import input_statistics
from kdexp.experiment.members import ROWS, compared_by
from kdexp.experiment.new_metrics import new_curves, new_metrics, of_network
from kdexp.metrics.evaluate import evaluate
from kdexp.models.complexity import macs, parameters
from kdexp.results import Record
from kdexp.weights import state_digest

log = logging.getLogger(__name__)

# A part of what identifies a teacher's measures: another number when kdexp.metrics would give the same teacher others.
_MEASURES_VERSION = 3
_EVALUATED: tuple[Literal["val", "test"], ...] = ("val", "test")
_OF_DATA = ("name", "val_fraction", "split_seed", "mean", "std")


def teacher_measures(experiment: Experiment) -> Record:
    """What the teacher itself can do and costs, measured the first time and remembered in the store.

    Args:
        experiment: one with a teacher.

    Returns:
        ``val`` and ``test``: metrics, of a file of outputs where it has all samples; ``curves``: of test
        (`kdexp.metrics.roc_and_confusion.RocAndConfusion.compact`);
        ``model``: its parameters and multiply-accumulates a sample, all members of an ensemble together; nothing
        where one has no parameters to be counted.
    """
    config, data, teacher = experiment.config, experiment.data, experiment.teacher
    assert teacher is not None
    key = fingerprint(
        {
            "version": _MEASURES_VERSION,
            "weights": [state_digest(network) for network in teacher.networks],
            "statistics": [
                input_statistics(member, net)
                for member, net in zip(experiment.members.values(), teacher.networks, strict=True)
            ],
            "data": {"task": config.dataset.kind, **{key: config.dataset[key] for key in _OF_DATA}},
            "content": data.content,
            **data.tiles,
            **({"groups": [data.groups[0], data.groups[1].tolist()]} if data.groups is not None else {}),
            **({"task": plain(config.task)} if compared_by(data.task) != ROWS else {}),
            **quick.mark(config.quick),
        }
    )
    path = Path(config.store_dir) / "teacher-measures" / f"{key}.json"
    remembered = _remembered(path)
    if not remembered:
        found = _measured(experiment)
        remembered = json.loads(json.dumps(found))
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(found))
        except OSError as error:  # somebody else's store
            log.warning("the teacher's metrics cannot be written to store_dir: %s: %s", path.parent, error.strerror)
    return remembered


def _measured(experiment: Experiment) -> dict[str, object]:
    data, teacher, place = experiment.data, experiment.teacher, experiment.device
    assert teacher is not None
    teacher.to(place)
    module, drawn = data.student, new_curves(data)
    drawn = drawn.to(place) if drawn is not None else None
    of_splits: dict[str, dict[str, float]] = {}
    for split in _EVALUATED:
        if teacher.knows(split, getattr(module.splits, split)):
            outputs = teacher.replaying(split, module.eval_batches(split, place))
            of_splits[split] = evaluate(
                lambda inputs, outputs=outputs: outputs(inputs).logits,  # type: ignore[misc]
                module.eval_batches(split, place),
                new_metrics(data, split).to(place),
                curves=drawn if split == "test" else None,
                what=f"teacher: evaluating on {split}",
            )
    if len(teacher.networks) == 1 and teacher.takes_any_inputs:
        of_splits["test"] |= of_network(data, teacher.networks[0], place, lambda x: teacher.network_inputs(x)[0])
    shape, counts = list(experiment.config.dataset.input_shape), [parameters(network) for network in teacher.networks]
    costs = {"parameters": sum(counts), "macs": sum(macs(network, shape) for network in teacher.networks)}
    curves = drawn.compute().compact() if drawn is not None and "test" in of_splits else {}
    return {**of_splits, "curves": curves, "model": costs if all(counts) else {}}


def _remembered(path: Path) -> Record:
    """What was measured before; nothing where it was not, or the file is damaged."""
    try:
        found = read_json(path)
    except ValueError as error:
        if path.exists():
            log.warning("%s is damaged: %s; the teacher is measured again", path, error)
        return {}
    return found if isinstance(found, dict) and found.keys() >= {"curves", "model"} else {}
