"""What was measured of one network under one condition, as a file."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdexp.atomic import atomic_path
from kdexp.robustness import renamed
from kdexp.robustness.grid import Measured


def keep_condition(file: Path, measured: Measured) -> None:
    """Write what was measured of one network in one condition, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    said = {
        "schema_version": "2",
        "values": json.dumps(dict(measured.values)),
        "notes": json.dumps(list(measured.notes)),
    }
    with atomic_path(file) as temporary:
        save_file({name: values.cpu().contiguous() for name, values in measured.samples.items()}, temporary, said)


def read_condition(file: Path) -> Measured | None:
    """What was measured in a condition before; None when that is nowhere, or damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            said = stored.metadata()
            samples = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        values, notes = json.loads(said["values"]), json.loads(said["notes"])
        if "schema_version" not in said:  # of an older kdexp
            values, samples = renamed.upgrade(values), renamed.upgrade(samples)
        return Measured(values, samples, notes)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
