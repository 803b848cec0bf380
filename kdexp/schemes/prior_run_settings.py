"""What the runs before a run have of it."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdexp import results
from kdexp.teacher.settings import TEACHER_KEYS


def prior_run(values: Mapping[str, Any], name: str, **changed: Any) -> tuple[str, dict[str, Any]]:
    """A run that comes before a run: (name, configuration), in ``output_dir/steps/NAME``.

    Args:
        values: the run's configuration.
        name: the prior run's.
        changed: top-level settings in which it differs.
    """
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


def as_teacher(values: Mapping[str, Any], name: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """The student of a prior run as a teacher.

    Args:
        values: the run's configuration.
        name: the prior run's.
        network: the settings of its student.
    """
    weights = str(folder(values, name) / results.WEIGHTS)
    taught = {key: values["teacher"][key] for key in TEACHER_KEYS if key in values["teacher"]}
    own: dict[str, Any] = {"weights": weights, "weights_key": None, "rename": {}}
    statistics = {key: values["dataset"][key] for key in ("mean", "std")}
    return {**network, **taught, **statistics, **own}


def folder(values: Mapping[str, Any], name: str) -> Path:
    """The run folder of a prior run."""
    return Path(values["output_dir"]) / "steps" / name
