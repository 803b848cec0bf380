"""What a step costs in kdexp, against a bare hand-written PyTorch loop doing the same work.

    python scripts/bench_step.py [--rounds 7]

Online: teacher and student in kdexp / in the bare loop. Cached: the student's epoch with a teacher's cached outputs in
kdexp / the bare loop that trains that student alone. Both train the same networks on the same uint8 images in memory,
with the same normalisation, loss and optimizer; kdexp measures and logs besides.
"""

import argparse

from timing import Work, in_turn, machine, row

CASES = {
    "smallest": ("mlp student.hidden=[16]", "mlp teacher.hidden=[64]", 200, {"shape": (1, 8, 8), "classes": 10}),
    "resnet8": ("resnet8", "resnet32", 12, {}),
    "resnet20": ("resnet20", "resnet56", 6, {}),
}
NAMES = {"smallest": "mlp 64-64-10 -> 64-16-10", "resnet8": "resnet32 -> resnet8", "resnet20": "resnet56 -> resnet20"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", default=",".join(CASES))
    arguments = parser.parse_args()
    print(machine(), f"\n{arguments.rounds} rounds, batches of 64\n")
    print("| step | kdexp, ms | bare loop, ms | ratio | rounds |\n|---|---|---|---|---|")
    for case in arguments.cases.split(","):
        student, teacher, steps, more = CASES[case]
        work = Work(student, teacher, steps, **more)
        found = in_turn(
            arguments.rounds,
            online=work.kdexp,
            bare_online=work.bare,
            cached=lambda work=work: work.kdexp("teacher.cache=unaugmented"),
            alone=lambda work=work: work.kdexp(alone=True),
            bare_alone=lambda work=work: work.bare(alone=True),
        )
        unit = 1e3 / steps
        print(row(f"{NAMES[case]}, online", found["online"], found["bare_online"], unit), flush=True)
        print(row(f"{NAMES[case]}, cached teacher outputs / student alone", found["cached"], found["bare_alone"], unit))
        print(row(f"{NAMES[case]}, student alone", found["alone"], found["bare_alone"], unit), flush=True)
        work.remove()


if __name__ == "__main__":
    main()
