"""How much a process grows while it reads a teacher's cached outputs that are 1 GB large.

    python scripts/bench_memory.py [--gigabytes 1]

A view of that size is read in random order, batch by batch, as a training reads it, and the process's resident set is
looked at all the while. The file is filled with zeros beforehand, by the cache itself.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from timing import machine

from kdexp.contracts import Outputs
from kdexp.teacher.cached_outputs import CachedOutputs
from kdexp.teacher.output_codec import OutputCodec

CLASSES, BATCH = 1000, 256


def resident() -> float:
    """MB of memory that this process holds, mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    arguments = parser.parse_args()
    samples = int(arguments.gigabytes * 1e9 / (2 * CLASSES))
    logits = torch.zeros(BATCH, CLASSES)

    def ask(view, positions):
        for start in range(positions.start, positions.stop, BATCH):
            yield [Outputs(logits[: min(BATCH, positions.stop - start)])]

    with tempfile.TemporaryDirectory(dir=".") as folder:
        outputs = CachedOutputs(
            Path(folder), {"samples": samples}, OutputCodec(1, [CLASSES], {}, "fp16"), torch.arange(samples), ask
        )
        index = torch.randperm(samples)
        before = resident()
        started = time.perf_counter()
        outputs.prepare(None)
        filled, largest = time.perf_counter() - started, resident()
        started = time.perf_counter()
        for batch in index.split(BATCH):
            outputs(batch, None, 1.0)
            largest = max(largest, resident())
        took = time.perf_counter() - started
        size = samples * 2 * CLASSES / 1e9
    print(
        machine(),
        "\n\n| cached outputs, GB | growth, MB | filled, s | an epoch read, s | samples/s |\n|---|---|---|---|---|",
    )
    print(f"| {size:.2f} | **{largest - before:.0f}** | {filled:.1f} | {took:.2f} | {samples / took:,.0f} |")


if __name__ == "__main__":
    main()
