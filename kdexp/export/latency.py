"""How long a network takes on this processor."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

BATCHES = (1, 32)
SECONDS = 1.0
_WARM_UP, _TIMED = 3, 20  # calls, at least
_MOST = 1000


@dataclass(frozen=True)
class Latency:
    """Of one call with a batch.

    Attributes:
        batch: samples of a call.
        median_ms: of all calls, milliseconds.
        p95_ms: 95 % of the calls took no longer.
        calls: how many were timed, after some that were not.
    """

    batch: int
    median_ms: float
    p95_ms: float
    calls: int


def latency(
    network: Callable[..., Tensor],
    example: Sequence[Tensor],
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float | None = None,
) -> list[Latency]:
    """Time a network that computes on the CPU, one call after the other.

    How many threads it uses is up to it (`kdexp.export.formats.onnx.load`; `torch.set_num_threads`).

    Args:
        network: what is called.
        example: its inputs (n, ...), n >= 1; they are repeated to fill a batch.
        batches: samples of a call.
        seconds: for how long each is timed, but for few or very many calls; before that it runs a fifth of it untimed.
            None: `SECONDS`.
    """
    seconds = SECONDS if seconds is None else seconds
    return [_of_batch(network, [_repeated(part, count) for part in example], seconds) for count in batches]


def _repeated(part: Tensor, count: int) -> Tensor:
    return part.repeat(-(-count // len(part)), *[1] * (part.dim() - 1))[:count].contiguous()


@torch.no_grad()
def _of_batch(network: Callable[..., Tensor], batch: Sequence[Tensor], seconds: float) -> Latency:
    def timed(seconds: float, least: int) -> list[float]:
        taken: list[float] = []
        while len(taken) < least or (sum(taken) < seconds and len(taken) < _MOST):
            started = time.perf_counter()
            network(*batch)
            taken.append(time.perf_counter() - started)
        return taken

    timed(seconds / 5, _WARM_UP)
    taken = [1000 * each for each in timed(seconds, _TIMED)]
    p95 = statistics.quantiles(taken, n=20, method="inclusive")[-1]
    return Latency(len(batch[0]), statistics.median(taken), p95, len(taken))


def processor() -> str:
    """The name of this machine's processor, as it says it itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
