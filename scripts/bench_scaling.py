"""How the cost of a run grows with its work, as slopes on doubly logarithmic scales: 1 is proportional, 0 is free.

    python scripts/bench_scaling.py [--rounds 3] [--cases epochs samples]

Seconds from the first step to the last (filling the cache is not in them: see scripts/bench_cache.py)
when one thing grows and all else stays: the epochs, the data, the classes, the teacher online, the teacher with kept
answers. Of one epoch, but for the first, which has the validation between epochs. Students: scripts/bench_fused.py.
"""

import argparse
import math
import statistics

from timing import Work, machine

CASES = {
    "epochs": [("cnn_small", "cnn", 20, {}, (f"trainer.max_epochs={2**k}",)) for k in range(1, 5)],
    "samples": [("cnn_small", "cnn", 20 * 2**k, {}, ()) for k in range(4)],
    "classes": [
        ("mlp", "mlp teacher.hidden=[64]", 20, {"classes": c, "shape": (1, 8, 8)}, ()) for c in (10, 100, 1000, 10000)
    ],
    "teacher, online": [("resnet8", name, 4, {}, ()) for name in ("resnet8", "resnet20", "resnet56", "resnet110")],
    "teacher, cached teacher outputs": [
        # An untrained teacher's logits can be more than fp16 holds.
        ("resnet8", name, 4, {}, ("teacher.cache=unaugmented", "teacher.cache_precision=fp32"))
        for name in ("resnet8", "resnet20", "resnet56", "resnet110")
    ],
}


def size(case: str, work: Work, classes: int, settings: tuple[str, ...]) -> float:
    if case == "epochs":
        return work.composed(*settings).trainer.max_epochs
    if case == "samples":
        return work.steps * work.batch
    if case == "classes":
        return classes
    return sum(p.numel() for p in work.teacher.networks[0].parameters())


def slope(sizes: list[float], seconds: list[float]) -> float:
    """Of the line through the logarithms, by least squares."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in seconds]).slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    arguments = parser.parse_args()
    print(machine(), "\n\n| what grows | from, to | seconds | slope |\n|---|---|---|---|")
    for case in arguments.cases:
        sizes, seconds = [], []
        for student, teacher, steps, more, settings in CASES[case]:
            work = Work(student, teacher, steps, **more)
            work.kdexp(*settings)  # warms up
            seconds.append(statistics.median(work.kdexp(*settings) for _ in range(arguments.rounds)))
            sizes.append(size(case, work, more.get("classes", 0), settings))
            work.remove()
        shown = ", ".join(f"{s:.3g}" for s in seconds)
        print(
            f"| {case} | {sizes[0]:,.0f} to {sizes[-1]:,.0f} | {shown} | **{slope(sizes, seconds):.2f}** |", flush=True
        )


if __name__ == "__main__":
    main()
