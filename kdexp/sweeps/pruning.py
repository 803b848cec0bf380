"""What may end a job early: its environment says whether it is a trial of a search or of a halving."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.results import Record

if TYPE_CHECKING:
    from kdexp.training.fit import Pruner

TRIAL = "KDEXP_TRIAL"  # environment variable: which trial of a search a job is, by its id in the study
PART = "KDEXP_PART"  # environment variable: how much of its training a trial of a halving is to do, as a part of one


def pruner_of(sweep_dir: str | None) -> "Pruner | None":
    """What may end this run early, when it is a trial of a search in this folder, or of a halving."""
    if PART in os.environ:
        return PausingPruner(float(os.environ[PART]))
    if TRIAL in os.environ:
        from kdexp.sweeps.optuna_study import EpochPruner  # here: optuna is an extra

        return EpochPruner(Path(sweep_dir or "."), int(os.environ[TRIAL]))
    return None


def epochs_of(part: float, planned: int) -> int:
    """How many of the planned epochs a part of a training has, rounded up."""
    return math.ceil(part * planned)


def planned_epochs(run: Record) -> int:
    """How many epochs a run is to train for; 0 where its results.json does not say yet."""
    return int(run.get("epochs", {}).get("planned") or 0)


class PausingPruner:
    """Ends a trial of a halving when a part of its training is done; the next part resumes from there.

    Args:
        part: of the epochs, above 0 to 1.
    """

    def __init__(self, part: float) -> None:
        self._part = part

    def __call__(self, epochs: Sequence[Mapping[str, float]], planned: int) -> str | None:
        """See `kdexp.sweeps.optuna_study.EpochPruner`."""
        done = int(epochs[-1]["epoch"]) + 1
        return f"paused after epoch {done} of {planned}" if epochs_of(self._part, planned) <= done < planned else None
