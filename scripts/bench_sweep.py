"""What a sweep of 12 jobs on scikit-learn's digits costs: with joblib against one after the other, and around each job.

    python scripts/bench_sweep.py [--epochs 30] [--jobs 2] [--rounds 1]

The same sweep is run by Hydra's basic launcher and by joblib, in turn, with one teacher that was trained before.
Printed are both wall times and their ratio; and, of the basic launcher, the overhead of each job after the first: the
time from the end of the job before it to its own end, less its training and evaluation (that is fork, configuration,
data, figures and W&B).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

KDEXP = Path(sys.executable).parent / "kdexp-train"
SWEEP = ("alpha=0.1,0.5", "temperature=1,4", "seed=0,1,2")


def seconds(folder: Path, *settings: str) -> float:
    folder.mkdir()
    started = time.perf_counter()
    subprocess.run(
        [KDEXP, *settings, "dataset=digits", "teacher=mlp_large"], cwd=folder, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"KDEXP_STORE_DIR": str(folder.parent / "store"), "WANDB_MODE": "offline"},
    )  # fmt: skip
    return time.perf_counter() - started


def overheads(folder: Path) -> list[float]:
    """Of each job but the first."""
    runs = [json.loads(path.read_text()) for path in folder.glob("multirun/*/*/results.json")]
    runs.sort(key=lambda run: run["ended"])
    ends = [datetime.fromisoformat(run["ended"]).timestamp() for run in runs]
    work = [run["cost"]["seconds"]["fit"] + run["cost"]["seconds"]["evaluation"] for run in runs]
    return [end - before - spent for before, end, spent in zip(ends, ends[1:], work[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    epochs = f"trainer.max_epochs={given.epochs}"
    joblib = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={given.jobs}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds(folder / "teacher", "trainer.max_epochs=1")
        ratios = []
        for number in range(given.rounds):
            basic = seconds(folder / f"basic{number}", "-m", *SWEEP, epochs)
            parallel = seconds(folder / f"joblib{number}", "-m", *SWEEP, epochs, *joblib)
            spent = overheads(folder / f"basic{number}")
            ratios.append(parallel / basic)
            print(
                f"basic {basic:.1f} s, joblib with {given.jobs} jobs at a time {parallel:.1f} s: ratio {ratios[-1]:.2f}"
            )
            print(f"overhead of a job after the first: {statistics.median(spent):.2f} s (largest {max(spent):.2f} s)")
        print(f"ratio over {given.rounds} rounds: median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
