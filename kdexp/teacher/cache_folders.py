"""The folders of cached outputs in the store."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from kdexp.atomic import atomic_path, read_json, writing_to_store
from kdexp.results import Record

log = logging.getLogger(__name__)

SHARD = 4096
"""Samples that have a checksum together, and are filled by one process."""
OUTPUTS, CHECKSUMS, METADATA, LOCK = "outputs.bin", "checksums.bin", "metadata.json", "lock"
_OLDER = {OUTPUTS: "answers.bin", METADATA: "card.json"}
_OLDER_KEYS = {"made_for": "created_for"}
DIGEST = hashlib.sha256().digest_size


def file_in(folder: Path, name: str) -> Path:
    """The file of a cache; in one of an older kdexp it has another name."""
    older = folder / _OLDER.get(name, name)
    return older if older.exists() else folder / name


def keep_metadata(folder: Path, metadata: Mapping[str, object]) -> None:
    """Write what the outputs depend on, where that is not there yet, or the file is damaged."""
    text, path = json.dumps(metadata, indent=2, default=str), file_in(folder, METADATA)
    try:
        if read_metadata(folder)["key"] == json.loads(text)["key"]:
            return
        raise ValueError(f"{path} is damaged: it is that of others")
    except ValueError as error:
        if path.exists():
            log.warning("teacher cache: %s; it is written again", error)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    except OSError:
        if not (folder / CHECKSUMS).exists():  # else it is for people alone, and the outputs may be complete
            with writing_to_store(folder):
                raise


def folder_of(store_dir: str | Path, key: str) -> Path:
    """Where the outputs of a key are cached."""
    return Path(store_dir) / "teacher-outputs" / key


def read_metadata(folder: Path) -> Record:
    """What the outputs in a folder depend on, and which experiment they were created for.

    Raises:
        ValueError: the file is damaged.
    """
    path = file_in(folder, METADATA)
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    is_dict = isinstance(found, dict)
    metadata: Record = {_OLDER_KEYS.get(key, key): value for key, value in found.items()} if is_dict else {}
    if not all(isinstance(metadata.get(name), kind) for name, kind in _IN_METADATA.items()):
        raise ValueError(f"{path} is damaged: it does not say what the outputs depend on")
    return metadata


_IN_METADATA: dict[str, type] = {"created_for": dict, "split": str, "samples": int, "key": dict, "config": dict}


def filled_views(folder: Path, samples: int) -> list[int]:
    """The views that are there of so many samples, by their digests alone."""
    shards = -(-samples // SHARD)
    digests = (folder / CHECKSUMS).read_bytes()
    there = [any(digests[place : place + DIGEST]) for place in range(0, len(digests), DIGEST)]
    return [slot for slot in range(len(there) // shards) if all(there[slot * shards : (slot + 1) * shards])]


def folders(store: Path) -> list[Path]:
    """The folders of all `CachedOutputs` in a store."""
    return sorted(path.parent for path in store.glob(f"*/{CHECKSUMS}"))


def used(folder: Path) -> int:
    """Bytes that a folder takes on the disk; what is not filled yet takes none."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def make_room(store: Path, wanted: Mapping[Path, int], max_gb: float) -> None:
    """See that there is room for cached outputs.

    Args:
        store: where all are.
        wanted: folder -> bytes that the outputs in it take when they are all there.
        max_gb: most that all in the store may take, in units of 10^9 bytes.

    Raises:
        ValueError: there is not.
    """
    others = sum(used(other) for other in folders(store) if other not in wanted)
    needed = sum(wanted.values())
    if (needed + others) / 1e9 > max_gb:
        raise ValueError(
            f"teacher.cache_max_gb must be at least {(needed + others) / 1e9:.3g} for this cache ({needed / 1e9:.3g}) "
            f"beside the others in the store ({others / 1e9:.3g}; kdexp-cache clean removes them), got {max_gb}"
        )
    free = shutil.disk_usage(next(path for path in (store, *store.parents) if path.exists())).free
    missing = needed - sum(used(folder) for folder in wanted if folder.exists())
    if missing > free:
        raise ValueError(
            f"store_dir must have {missing / 1e9:.3g} GB free for the teacher cache, got {free / 1e9:.3g} GB in {store}"
        )
