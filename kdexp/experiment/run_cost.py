"""What a run costs, for its results: the seconds of each phase, samples a second, memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kdexp.results import Results
from kdexp.training.fit import FitResult, peak_memory


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add how long the block took, unless it fails.

    Args:
        seconds: by phase, added to.
        phase: of the run.
    """
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started


def add_training_cost(record: Results, fitted: FitResult, samples: int) -> None:
    """Add what the training took.

    Args:
        record: results, added to.
        fitted: what the training left.
        samples: of the training split.
    """
    record["cost"]["samples_per_second"] = samples * len(fitted.seconds) / max(sum(fitted.seconds), 1e-9)
    record["cost"]["peak_memory_bytes"] = peak_memory(fitted.device)
