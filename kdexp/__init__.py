"""kdexp: config-driven experiments in knowledge distillation."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdexp.config.compose import compose
    from kdexp.experiment.experiment import Experiment
    from kdexp.experiment.run import run
    from kdexp.export.student import load
    from kdexp.training.distiller import Distiller

__all__ = ["Distiller", "Experiment", "compose", "load", "run"]
__version__ = "0.1.0"

# A thread of OpenMP's that waits for others keeps its core busy, by default for so long that two trainings on the same
# cores can slow each other down a hundredfold (scripts/bench_cpu_contention.py). libgomp reads this when torch is first
# imported: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# What W&B reports of itself goes to the same server as the runs: when that does not answer, every process that has used
# W&B would wait for it at its end. W&B reads this when it is first imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

_MODULES = {
    "Distiller": "training.distiller",
    "Experiment": "experiment.experiment",
    "compose": "config.compose",
    "load": "export.student",
    "run": "experiment.run",
}


def __getattr__(name: str) -> object:
    """The public names, imported when they are first used: `import kdexp` needs no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module kdexp has no attribute {name}")
    return getattr(import_module(f"kdexp.{_MODULES[name]}"), name)
