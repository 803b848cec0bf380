"""torch.compile, where it pays: it makes a step faster and takes a minute before the first one."""

import copy
import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

SHORT = 60.0
"""A training of fewer seconds is not worth the trial: to compile takes about as long."""
_STEPS = 5


def compile_in_place(networks: Sequence[nn.Module]) -> None:
    """Compile networks; ``torch.compile(module)`` would prefix every key of the state dict with _orig_mod."""
    for network in networks:
        network.compile()
    # Gradient statistics run a second backward through the same graph.
    torch._functorch.config.donated_buffer = False


def pays(student: nn.Module, teachers: Sequence[nn.Module], inputs: Tensor, steps: int) -> bool:
    """Find out by a short trial whether to compile, and say so.

    Copies of the networks take some steps as they are and some compiled. What is saved in all steps of the training is
    held against the time that compiling took.

    Args:
        student: runs forward and backward in a step.
        teachers: run forward in every step; none where their outputs are cached.
        inputs: a batch like those of the training, on the networks' device.
        steps: of the whole training.

    Returns:
        Whether compiling makes the training shorter.
    """
    student, *teachers = copy.deepcopy([student, *teachers])

    def step() -> None:
        with torch.no_grad():
            for network in teachers:
                network(inputs)
        student(inputs).float().logsumexp(1).mean().backward()

    step()
    plain = _seconds(step)
    if plain * steps < SHORT:
        log.info("compile=auto: no, the steps take about %.0f s in all", plain * steps)
        return False
    started = time.perf_counter()
    try:
        compile_in_place([student, *teachers])
        step()
    except Exception as error:  # whatever its back end lacks or does not support
        log.info("compile=auto: no, it failed: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        return False
    compiling = time.perf_counter() - started
    faster = _seconds(step)
    saved = (plain - faster) * steps - compiling
    log.info(
        "compile=auto: %s, a step takes %.1f ms instead of %.1f, and compiling took %.0f s: %.0f s %s in %d steps",
        "yes" if saved > 0 else "no",
        1e3 * faster,
        1e3 * plain,
        compiling,
        abs(saved),
        "saved" if saved > 0 else "lost",
        steps,
    )
    return saved > 0


def _seconds(step: Callable[[], None]) -> float:
    times = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[_STEPS // 2]
