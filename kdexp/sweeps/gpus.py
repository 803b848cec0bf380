"""Which GPUs a job takes on a machine with several."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from kdexp.training.settings import Trainer


def spread_over_gpus(trainer: Trainer) -> None:
    """Several jobs on a machine with several GPUs: let each see as many as it uses, and those that are least used."""
    started_by_another = (
        any(name in os.environ for name in ("RANK", "LOCAL_RANK")) or int(os.environ.get("SLURM_NTASKS", 1)) > 1
    )
    if trainer.accelerator == "cpu" or not isinstance(trainer.devices, int) or started_by_another:
        return
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    if trainer.devices < len(visible):
        folder = Path(tempfile.gettempdir(), f"kdexp-gpus-{os.getuid()}")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(reserve_gpus(trainer.devices, visible, folder))


def reserve_gpus(count: int, visible: Sequence[str], folder: Path) -> list[str]:
    """Choose GPUs that the fewest other jobs are on, and hold them until this process ends.

    Args:
        count: how many, of those that are visible.
        visible: as CUDA_VISIBLE_DEVICES names them.
        folder: of the locks that all jobs on this machine share.

    Returns:
        The chosen ones.
    """
    folder.mkdir(exist_ok=True)
    taken: list[str] = []
    turn = 0
    while len(taken) < count:
        for gpu in visible:
            lock = FileLock(folder / f"{gpu}.{turn}")
            if len(taken) < count and gpu not in taken:
                with suppress(Timeout):
                    lock.acquire(timeout=0)
                    taken.append(gpu)
                    _held.append(lock)
        turn += 1
    return taken


_held: list[BaseFileLock] = []
