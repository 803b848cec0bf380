"""kdexp: config-driven experiments in knowledge distillation."""

import os

__version__ = "0.1.0"

# A thread of OpenMP's that waits for others keeps its core busy, by default for so long that two trainings on the same
# cores can slow each other down a hundredfold (scripts/bench_neighbours.py). libgomp reads this when torch is first
# imported: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# What W&B reports of itself goes to the same server as the runs: when that does not answer, every process that has used
# W&B would wait for it at its end. W&B reads this when it is first imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
