"""How long ``kdexp-train --help`` takes, against ``import torch`` alone.

python scripts/bench_startup.py [--rounds 7]
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from timing import in_turn, machine, row


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    program = str(Path(sys.executable).with_name("kdexp-train"))
    found = in_turn(
        arguments.rounds,
        help=lambda: seconds(program, "--help"),
        torch=lambda: seconds(sys.executable, "-c", "import torch"),
    )
    print(machine(), "\n\n| | kdexp-train --help, s | import torch, s | ratio | rounds |\n|---|---|---|---|---|")
    print(row("start", found["help"], found["torch"], unit=1))


if __name__ == "__main__":
    main()
