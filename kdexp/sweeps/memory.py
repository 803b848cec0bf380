"""How much memory there is, and how much a piece of work takes of it."""

from collections.abc import Callable
from pathlib import Path

import torch

_PROCESS, _CGROUP = Path("/proc/self"), Path("/sys/fs/cgroup")


def free(device: torch.device) -> int | None:
    """Bytes that this process could still take on a device; None where the system does not say (Linux does)."""
    if device.type == "cuda":
        return (
            int(torch.cuda.mem_get_info(device)[0])
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    try:
        available = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    except OSError:
        return None
    try:
        most, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        (cached,) = (
            int(line.split()[1]) for line in (_CGROUP / "memory.stat").open() if line.startswith("inactive_file ")
        )
    except (OSError, ValueError):  # no container, or one without a limit
        return available
    return min(available, most - used + cached)


def peak_of(work: Callable[[], None], device: torch.device) -> int | None:
    """Do some work; by how many bytes at most this process then had more than before. None as for `free`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the peak begins anew
        before = _kilobytes(_PROCESS / "status", "VmRSS")
    except OSError:
        work()
        return None
    work()
    return _kilobytes(_PROCESS / "status", "VmHWM") - before


def _kilobytes(file: Path, name: str) -> int:
    (line,) = (line for line in file.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
