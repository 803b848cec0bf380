"""Networks whose images have their channels last in memory against the same with channels first, on a CPU.

    python scripts/bench_channels_last.py [--rounds 5] [--shape 3 32 32]

Forward and backward of a batch of 64 with all threads, as a student is trained, and the forward pass over a block of 32
with one, as a teacher runs; and what ``trainer.channels_last=auto`` makes of the network.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from timing import Work, in_turn, machine, row
from torch import nn

from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import is_channels_last
from kdexp.teacher.teacher import BLOCK

NETWORKS = ["cnn_small", "cnn", "cnn_large", "resnet8", "resnet20", "resnet56", "resnet8x4", "wrn_16_2", "vgg8",
            "mobilenetv2_half", "shufflenetv1", "shufflenetv2"]  # fmt: skip


def trained(network: nn.Module, inputs: torch.Tensor) -> float:
    """Seconds of a step without its optimizer."""
    network.train().zero_grad()
    started = time.perf_counter()
    network(inputs).logsumexp(1).mean().backward()
    return time.perf_counter() - started


@torch.no_grad()
def as_teacher(network: nn.Module, inputs: torch.Tensor) -> float:
    """Seconds of a pass by one thread."""
    network.eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.perf_counter()
    network(inputs)
    seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    return seconds


def compared(what: str, first: nn.Module, inputs: torch.Tensor, rounds: int, measure: Callable[..., float]) -> None:
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)
    found = in_turn(rounds, last=lambda: measure(last, inputs), first=lambda: measure(first, inputs))
    print(row(what, found["last"], found["first"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=[3, 32, 32], metavar=("C", "H", "W"))
    arguments = parser.parse_args()
    inputs = torch.randn(64, *arguments.shape)
    print(machine(), "\n\n| network | channels last, ms | first, ms | ratio | rounds |\n|---|---|---|---|---|")
    for name in NETWORKS:
        work = Work(name, "cnn", 1, shape=tuple(arguments.shape))
        network = Experiment(work.config).new_student(pretrained=None)
        auto = "last" if is_channels_last(network, "auto", work.config) else "first"
        compared(f"{name}, trained (auto: {auto})", network, inputs, arguments.rounds, trained)
        compared(f"{name}, as a teacher", network, inputs[:BLOCK], arguments.rounds, as_teacher)
        work.remove()


if __name__ == "__main__":
    main()
