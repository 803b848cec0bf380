"""What a fused sweep of small students costs, against the same jobs one after the other.

    python scripts/bench_fused.py [--rounds 3] [--epochs 3] [--students 1 2 4 8 12 16 32 64] [--no-sweeps]

First whole sweeps of 12 jobs (four alphas, three temperatures) from the command line, from the first to the last
second: hydra/launcher=fused against Hydra's basic launcher, in turn. The basic launcher imports PyTorch once for all
its jobs, so it takes less than 12 runs that are started by hand. Then the curve over the number of students: a step of
all of them against as many times a step of a student that is trained alone, without the epochs' ends.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from timing import Work, in_turn, machine, now, row

from kdexp.sweeps.shared_experiment import Shared, SharedExperiment
from kdexp.sweeps.shared_process import RoundRobin
from kdexp.sweeps.step_backends import Backend
from kdexp.training.fit import fit

STUDENTS = {"mlp": "mlp student.hidden=[64]", "cnn_small": "cnn_small"}
SWEEP = ("alpha=0.1,0.3,0.5,0.9", "temperature=1,2,4")
DATA = ("experiment=smoke", "tracking=none", "dataset.input_shape=[1,28,28]", "dataset.mean=[0.5]",
        "dataset.std=[0.25]", "dataset.source.train_samples=12800")  # fmt: skip


def sweep(folder: Path, *settings: str) -> float:
    """Seconds of a sweep that is run for the first time; the teacher has been trained before."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        started = time.perf_counter()
        command = [Path(sys.executable).parent / "kdexp-train", "-m", *DATA, *settings]
        env = os.environ | {"KDEXP_STORE_DIR": str(folder / "store")}
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, env=env)
        return time.perf_counter() - started


class Timed(Backend):
    """Notes how long each step of all students took."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seconds: list[float] = []

    @contextmanager
    def round(self, *arguments) -> Iterator[None]:
        started = time.perf_counter()
        with super().round(*arguments):
            yield
        self.seconds.append(now(arguments[0][0].device) - started)


def steps(work: Work, students: int, backend: str) -> float:
    """Median seconds of a step of so many students."""
    return statistics.median(seconds_of_steps(work, students, backend))


def seconds_of_steps(work: Work, students: int, backend: str) -> list[float]:
    """Seconds of each step of so many students, but for the first two and the last."""
    turns = RoundRobin(Timed(backend), students)
    shared = Shared(turns)

    def job(number: int) -> None:
        config = work.composed(f"alpha={0.1 + 0.8 * number / students}", f"temperature={1 + number % 4}")
        experiment = SharedExperiment(config, shared)
        settings = {"devices": 1, "max_epochs": 1, "limit_train_batches": work.steps}
        settings |= {name: config.trainer[name] for name in ("accelerator", "precision")}
        with tempfile.TemporaryDirectory(dir=work.folder) as folder:
            fit(experiment.distiller, experiment.batches, Path(folder), settings, owner="bench")

    turns.run([partial(job, number) for number in range(students)])
    return turns.backend.seconds[2:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--students", type=int, nargs="*", default=[1, 2, 4, 8, 12, 16, 32, 64])
    parser.add_argument("--no-sweeps", action="store_true")
    given = parser.parse_args()
    print(machine())
    if not given.no_sweeps:
        print("\n| sweep of 12, s | fused | one by one | ratio | spread |\n|---|---|---|---|---|")
        for name in STUDENTS:
            with tempfile.TemporaryDirectory() as folder:
                settings = (f"student={name}", *SWEEP, f"trainer.max_epochs={given.epochs}")
                sweep(Path(folder), f"student={name}", "alpha=0.5", "trainer.max_epochs=1")  # trains the teacher
                found = in_turn(
                    given.rounds,
                    warm_up=False,
                    fused=partial(sweep, Path(folder), *settings, "hydra/launcher=fused"),
                    basic=partial(sweep, Path(folder), *settings),
                )
            print(row(f"{name}, {given.epochs} epochs", found["fused"], found["basic"], unit=1, digits=1), flush=True)
    print("\n| students | together, ms | alone, ms | loop / alone | vmap / alone |\n|---|---|---|---|---|")
    for name, student in STUDENTS.items():
        layout = ("trainer.channels_last=auto",)  # as in the sweeps
        work = Work(student, "cnn teacher.recipe.max_epochs=1", 20, shape=(1, 28, 28), classes=10, settings=layout)
        for students in given.students:
            found = in_turn(
                given.rounds,
                alone=lambda work=work: work.kdexp() / work.steps,
                loop=partial(steps, work, students, "loop"),
                vmap=partial(steps, work, students, "vmap"),
            )
            alone = [students * seconds for seconds in found["alone"]]
            ratios = {
                way: statistics.median(ours / other for ours, other in zip(found[way], alone, strict=True))
                for way in ("loop", "vmap")
            }
            best = min(1e3 * statistics.median(found[way]) for way in ratios)
            shown = f"{ratios['loop']:.2f} | {ratios['vmap']:.2f}"
            print(f"| {students} {name} | {best:.1f} | {1e3 * statistics.median(alone):.1f} | {shown} |", flush=True)
        work.remove()


if __name__ == "__main__":
    main()
