"""results.json: what a run was, how it ended and what came out; the one source for every comparison."""

import json
import platform
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdexp.atomic import atomic_path

SCHEMA_VERSION = 1
FILE = "results.json"
STATUSES = ("running", "completed", "failed", "oom", "diverged", "interrupted")
"""``running`` stays behind when a process is killed without a chance to say so."""

_LINE_BREAK = re.compile(r"\n\s*")
_FACTS = {"schema_version", "status", "config", "overrides", "seed", "is_control", "control_fingerprint"}


@contextmanager
def recording(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep results.json true while a run lasts.

    Args:
        folder: the run folder.
        facts: what is known before: configuration, fingerprints, names.

    Yields:
        The results so far, to be added to. They are written when the block begins, and when it ends, however it ends.
    """
    results: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "status": "running", **facts, "versions": _versions()}
    write(folder, results)
    try:
        yield results
    except BaseException as error:
        results["status"] = status_of(error)
        results["error"] = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk, most likely: what went wrong before is what is to be heard
            write(folder, results)
        raise
    results["status"] = "completed"
    write(folder, results)


def status_of(error: BaseException) -> str:
    """How a run ended that ended with this exception."""
    # Lightning turns Ctrl-C into SystemExit; what it came from is still linked.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt) or getattr(cause, "code", None) == 128 + 15:
            return "interrupted"
        cause = cause.__context__
    # By name: this module stays importable without torch, for programs that only read results.
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error):
        return "oom"
    return str(getattr(error, "status", "failed"))


def argument(key: str, folder: Path) -> str:
    """``KEY=FOLDER`` as it is to be typed: quoted for Hydra and for the shell where the path needs it."""
    path = str(folder)
    return f"{key}={path}" if re.fullmatch(r"[\w./-]+", path) else shlex.quote(f"{key}='{path}'")


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, atomically."""
    text = json.dumps(results, indent=2, default=str)
    # A list of numbers or words (a curve, a row of a matrix) is one line. A line break is never part of a JSON string.
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: f"[{_LINE_BREAK.sub(' ', found[1])}]", text)
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(text + "\n")


def read(folder: Path, setting: str) -> dict[str, Any]:
    """Read the results of a run.

    Args:
        folder: the run folder.
        setting: the setting that named the folder, for messages.

    Raises:
        ValueError: the folder does not hold a run, or one of a later kdexp.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{setting} must be the folder of a run (with {FILE} in it), got {folder}")
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{setting} must hold a readable {FILE}, got {path}: {error}") from error
    if not isinstance(results, dict) or not results.keys() >= _FACTS:
        raise ValueError(f"{setting} must hold the {FILE} of a run, got {path}")
    found = results.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ValueError(f"{setting} must hold a {FILE} of schema version {SCHEMA_VERSION}, got {found} in {path}")
    return results


def _versions() -> dict[str, str]:
    packages = ("kdexp", "torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "wandb")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
