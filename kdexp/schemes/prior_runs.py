"""Schemes of several runs: from one configuration to the runs that must come before it."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdexp import results
from kdexp.config.identity import is_control
from kdexp.teacher.settings import TEACHER_KEYS


def steps(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs that come before the run itself, in their order, and at last that.

    Args:
        values: a configuration, as `kdexp.config.compose.plain` gives it.

    Yields:
        (name, configuration): for each run before, in ``output_dir/steps/NAME``; then ("", the run itself), which has
        the last of them for a teacher. A control, and a run without a scheme of steps, is its own only step.
    """
    chains = {"teacher_assistant": _assistants, "born_again": _generations, "cross_domain": _source}
    chain = chains.get(values["scheme"].get("name", ""))
    if chain is None or is_control(values):
        yield "", dict(values)
    else:
        yield from chain(dict(values))


def _assistants(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    teacher = values["teacher"]
    for name, network in values["scheme"]["assistants"].items():
        yield _step(values, name, student=network, teacher=teacher)
        teacher = _learned(values, name, network)
    yield "", {**values, "teacher": teacher}


def _generations(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    teacher = values["teacher"]
    before = values["scheme"]["generations"] - 1
    # The last one has the run's own seed, so that it is paired with the control of that seed.
    for generation in range(1, before + 1):
        name = f"generation_{generation}"
        yield _step(values, name, seed=values["seed"] + generation, teacher=teacher)
        teacher = _learned(values, name, values["student"])
    yield "", {**values, "teacher": teacher}


def _source(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    teacher, source = values["teacher"], values["scheme"]["source"]
    recipe = teacher["recipe"]
    network = {key: value for key, value in teacher.items() if key not in TEACHER_KEYS}
    yield _step(
        values,
        "teacher",
        student=network,
        # The seeds are the recipe's, so that it is the same teacher for all seeds of the student.
        dataset={**source, "batch_size": recipe["batch_size"], "subset_seed": recipe["subset_seed"]},
        augment={"views": None, "seed": recipe["seed"], "transforms": [], **(recipe.get("augment") or {})},
        optimizer=recipe["optimizer"],
        scheduler=recipe["scheduler"],
        label_smoothing=recipe["label_smoothing"],
        seed=recipe["seed"],
        trainer={
            **values["trainer"],
            "max_epochs": recipe["max_epochs"],
            "precision": recipe["precision"],
            "gradient_clip_val": recipe["gradient_clip_val"],
            "channels_last": recipe["channels_last"],
            **{key: recipe[key] for key in ("monitor",) if key in recipe},
        },  # an older kdexp's has none
        alpha=1.0,
        alpha_schedule={"kind": "constant", "final": None},
        feature_loss={},
    )
    learned = _learned(values, "teacher", network)
    yield "", {**values, "teacher": {**learned, "mean": source["mean"], "std": source["std"]}}


def _step(values: Mapping[str, Any], name: str, **changed: Any) -> tuple[str, dict[str, Any]]:
    tracking = values["tracking"]
    return name, copy.deepcopy(
        {
            **values,
            **changed,
            "scheme": {},
            "robustness": {},
            "output_dir": str(folder(values, name)),
            "tracking": {**tracking, "name": f"{tracking['name'] or ''} {name}".strip()},
        }
    )


def _learned(values: Mapping[str, Any], name: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """The student of a step as a teacher."""
    weights = str(folder(values, name) / results.WEIGHTS)
    taught = {key: values["teacher"][key] for key in TEACHER_KEYS if key in values["teacher"]}
    own: dict[str, Any] = {"weights": weights, "weights_key": None, "rename": {}}
    statistics = {key: values["dataset"][key] for key in ("mean", "std")}
    return {**network, **taught, **statistics, **own}


def folder(values: Mapping[str, Any], name: str) -> Path:
    """The run folder of a step."""
    return Path(values["output_dir"]) / "steps" / name
