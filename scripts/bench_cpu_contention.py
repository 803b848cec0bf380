"""What a training costs while another one runs on the same cores, with kdexp's way of waiting and with OpenMP's own.

    python scripts/bench_cpu_contention.py [--rounds 3] [--seconds 4]

A step alone and with a neighbour that does the same, each in a process of its own with a thread for each core; kdexp
sets GOMP_SPINCOUNT (kdexp/__init__.py), which decides how long a thread that waits for others keeps its core busy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTING = "GOMP_SPINCOUNT"
STUDENTS = {"mlp 64-64-10": (1, 8, 8), "resnet20": (3, 32, 32)}


def step_seconds(student: str, seconds: float) -> float:
    """Mean seconds of a step, for so long; in the process that measures."""
    import torch
    from torch.nn import functional as F

    from kdexp.models.mlp import mlp
    from kdexp.models.resnet_cifar import resnet20

    shape = STUDENTS[student]
    network = resnet20(10, shape) if student == "resnet20" else mlp(10, shape, hidden=[64], dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    inputs, target = torch.randn(64, *shape), torch.randint(0, 10, (64,))
    steps, started = -5, time.perf_counter()
    while steps < 1 or time.perf_counter() < started + seconds:
        if steps == 0:
            started = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), target).backward()
        optimizer.step()
        steps += 1
    return (time.perf_counter() - started) / steps


def measured(student: str, processes: int, seconds: float, environment: dict[str, str]) -> float:
    """Mean milliseconds of a step of so many at once."""
    command = [sys.executable, __file__, "--measure", student, "--seconds", str(seconds)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return statistics.mean(1e3 * float(process.communicate()[0]) for process in running)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(step_seconds(given.measure, given.seconds))
        return
    from timing import machine

    ours = {**os.environ}  # with what kdexp, that `timing` imports, has set
    theirs = {**os.environ, SETTING: "300000"}  # libgomp's own, where there are no more threads than cores
    print(machine(), f"\n{given.rounds} rounds, {SETTING}={ours[SETTING]}\n")
    print("| step, ms | kdexp, alone | OpenMP's own, alone | kdexp, two at once | OpenMP's own, two at once |")
    print("|---|---|---|---|---|")
    for student in STUDENTS:
        cells = [
            [measured(student, processes, given.seconds, environment) for _ in range(given.rounds)]
            for processes in (1, 2)
            for environment in (ours, theirs)
        ]
        shown = " | ".join(f"{statistics.median(c):.3g} ({min(c):.3g} to {max(c):.3g})" for c in cells)
        print(f"| {student} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
