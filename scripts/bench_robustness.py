"""What corrupting a batch costs, against one clean pass of a network over it.

    python scripts/bench_robustness.py [--student resnet20] [--batch 512] [--size 32] [--channels 3] [--rounds 3]

Every corruption in conf/corruption that applies is run at severities 1 and 5 in turn with the network, so that a busy
machine slows both. Printed are images a second, and the cost of a condition of the grid (corrupt, and let the network
see it) as a multiple of the clean pass; the median over the corruptions is what a whole grid costs a condition.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from kdexp.config.compose import compose
from kdexp.config.objects import instantiate
from kdexp.experiment.experiment import Experiment

CONF = Path(__file__).parents[1] / "conf" / "corruption"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = [arguments.channels, arguments.size, arguments.size]
    config = compose(
        ["experiment=smoke", f"student={arguments.student}", f"dataset.input_shape={shape}"], output_dir="unused"
    )
    network = Experiment(config).new_student(pretrained=None).eval().to(device)
    images, index = torch.rand(arguments.batch, *shape, device=device), torch.arange(arguments.batch, device=device)
    corruptions = {}
    for path in sorted(CONF.glob("*.yaml")):
        corruptions |= {
            name: instantiate(entry, "perturbation") for name, entry in yaml.safe_load(path.read_text()).items()
        }
    rows = []
    with torch.no_grad():
        for name, corruption in corruptions.items():
            if corruption.why_not(shape):
                continue
            spent, passes = [], []
            for severity in (1, 5):
                for attempt in range(arguments.rounds + 1):
                    clean = seconds(lambda: network(images), device)
                    corrupt = seconds(lambda c=corruption, s=severity: c(images, index, severity=s, seed=0), device)
                    if attempt:  # the first makes tables and allocates
                        spent.append(corrupt)
                        passes.append(clean)
            cost = 1 + statistics.median(c / p for c, p in zip(spent, passes, strict=True))
            rows.append((cost, name, arguments.batch / statistics.median(spent)))
    threads = torch.get_num_threads()
    print(
        f"{arguments.batch} images {shape}, {arguments.student}, {device}, {threads} threads, torch "
        f"{torch.__version__}, {platform.machine()}"
    )
    print(f"{'corruption':<20}{'images/s':>10}   condition / clean pass")
    for cost, name, speed in sorted(rows):
        print(f"{name:<20}{speed:>10.0f}   {cost:.2f}")
    print(f"median {statistics.median(cost for cost, *_ in rows):.2f}")


if __name__ == "__main__":
    main()
