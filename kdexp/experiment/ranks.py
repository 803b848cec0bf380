"""The processes that run one job together."""

import os
import sys


def rank() -> int:
    """This process's rank among those that run one job together: launched by Lightning, torchrun or SLURM."""
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0)


def barrier() -> None:
    """Wait for the other ranks of this job, if there are any."""
    if "torch.distributed" in sys.modules:
        distributed = sys.modules["torch.distributed"]
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
