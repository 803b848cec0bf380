"""The processes that run one job together."""

import os
import sys
from types import ModuleType


def rank() -> int:
    """This process's rank among those that run one job together: launched by Lightning, torchrun or SLURM."""
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0)


def barrier() -> None:
    """Wait for the other ranks of this job, if there are any."""
    if (distributed := _initialized()) is not None:
        distributed.barrier()


def leave_group() -> None:
    """Leave the other ranks of this job, if there are any."""
    if (distributed := _initialized()) is not None:
        distributed.destroy_process_group()


def _initialized() -> ModuleType | None:
    """torch.distributed in a process that is a rank; it is not imported for that."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed
