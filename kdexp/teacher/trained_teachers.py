"""A teacher is trained once and kept in the store."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from kdexp.atomic import atomic_path, read_json, remove_staged, sha256, training_lock
from kdexp.weights import save_weights

log = logging.getLogger(__name__)


def load_or_train(folder: Path, description: Mapping[str, object], train: Callable[[Path], nn.Module]) -> None:
    """See to it that a folder holds a network's trained weights: train them the first time, find them ever after.

    Several processes may call it at once: one trains, the others wait. Weights whose checksum does not fit (a truncated
    or altered file) are not used but trained again.

    Args:
        folder: gets ``teacher.safetensors`` and ``teacher.json``: the description and the checksum.
        description: all that the weights depend on, for a person to read; plain values.
        train: gets a folder to work in, where an interrupted training may be continued, and returns the network.
    """
    weights, metadata = folder / "teacher.safetensors", folder / "teacher.json"
    if _is_whole(weights, metadata):  # a store of somebody else's need not be written to
        return
    with training_lock(folder / "lock", "teacher"):
        if not _is_whole(weights, metadata):
            if metadata.exists():
                log.warning("teacher: %s is damaged; training it again", weights)
            remove_staged(folder)
            work = folder / "training"
            save_weights(train(work), weights)
            with atomic_path(metadata) as temporary:
                temporary.write_text(json.dumps({"sha256": sha256(weights), **description}, indent=2, default=str))
            shutil.rmtree(work, ignore_errors=True)


def _is_whole(weights: Path, metadata: Path) -> bool:
    try:
        return bool(read_json(metadata)["sha256"] == sha256(weights))
    except (OSError, ValueError, LookupError, TypeError):
        return False
