"""What the runs before a run have of it."""

import copy
from pathlib import Path

from kdexp import results, run_folder
from kdexp.config.require import Values
from kdexp.teacher.settings import TEACHER_KEYS


def prior_run(values: Values, name: str, **changed: object) -> tuple[str, Values]:
    """A run that comes before a run: (name, configuration), in ``output_dir/prior_runs/NAME``.

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


def as_teacher(values: Values, name: str, network: Values) -> Values:
    """The student of a prior run as a teacher.

    Args:
        values: the run's configuration.
        name: the prior run's.
        network: the settings of its student.
    """
    weights = str(folder(values, name) / results.WEIGHTS)
    taught = {key: values["teacher"][key] for key in TEACHER_KEYS if key in values["teacher"] and key != "classes"}
    own: Values = {"weights": weights, "weights_key": None, "rename": {}}
    statistics = {key: values["dataset"][key] for key in ("mean", "std")}
    return {**network, **taught, **statistics, **own}


def folder(values: Values, name: str) -> Path:
    """The run folder of a prior run."""
    return run_folder.prior_runs(Path(values["output_dir"])) / name
