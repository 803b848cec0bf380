"""What is known of a run before it begins."""

import os
from collections.abc import Sequence

from kdexp.config import quick
from kdexp.config.identity import Identity, code_version
from kdexp.config.moved_folders import anchored
from kdexp.config.require import Values
from kdexp.experiment.members import new_task, teacher_files
from kdexp.metrics import monitor
from kdexp.results import Record, Results

LAUNCH = "KDEXP_LAUNCH"  # environment variable: which launch of a sweep a job belongs to


def run_metadata(values: Values, overrides: Sequence[str], earlier: Record) -> Results:
    """What is known of a run before it begins, for results.json.

    Args:
        values: its configuration, as `kdexp.config.compose.plain` gives it.
        overrides: what was typed.
        earlier: the results of the run that is continued, or nothing.
    """
    identity = Identity(values)
    task = new_task(values["task"], values["dataset"])
    chosen_by, _ = monitor.rule(values["trainer"].get("monitor"), task.monitor, attacked=identity.is_attacked)
    return {
        "choices": values["choices"],
        "overrides": overrides,
        "alpha": values["alpha"],
        "temperature": values["temperature"],
        "seed": values["seed"],
        "fingerprint": identity.fingerprint,
        "code_version": code_version(),
        "key": identity.key,
        "launch": os.environ.get(LAUNCH),
        "control_fingerprint": identity.control_fingerprint,
        "is_control": identity.is_control,
        "measure": task.measure,
        "epochs": {"monitor": chosen_by},
        "wandb_id": earlier.get("wandb_id", os.urandom(4).hex()),
        "data_content": earlier.get("data_content"),
        "teacher_files": teacher_files(values),
        **({"note": quick.NOTE} if values.get("quick") else {}),
        "config": anchored(values),
    }
