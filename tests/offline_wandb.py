"""What W&B itself reads back from a run that it kept offline: ``wandb leet inspect``, without the start of Python."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path


def records(folder: Path) -> list[dict]:
    """The records of a run's folder, in the order in which they were written."""
    return list(map(json.loads, _inspect(folder).splitlines()))


def summary(folder: Path) -> dict:
    """The state, the configuration and the summary of a run."""
    return json.loads(_inspect(folder, "--summary"))


def _inspect(folder: Path, *options: str) -> str:
    core = Path(find_spec("wandb").origin).parent / "bin" / "wandb-core"
    (file,) = folder.resolve().glob("run-*.wandb")
    command = [core, "leet", "inspect", "--no-observability", *options, "--json", "--run-file", file, file.parents[1]]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
