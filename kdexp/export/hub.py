"""A folder as Hugging Face's Hub has it, and its way there: ``pip install 'kdexp[hub]'``."""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file

from kdexp.atomic import atomic_path, read_json
from kdexp.config.compose import one_line
from kdexp.config.untrusted import inside, printable, without_folders
from kdexp.export import description, model_card
from kdexp.export.finding import HUB_WEIGHTS, run_at, weights_at
from kdexp.export.settings import EXPORT
from kdexp.report import robustness_artifacts
from kdexp.results import Record
from kdexp.weights import METADATA

CONFIG = "config.json"
SENT = (HUB_WEIGHTS, CONFIG, EXPORT, model_card.FILE, model_card.HUB_FILE, "tokenizer.json")
"""What may leave this machine beside the exported file: no checkpoint, no pickle, no log, nothing of anybody else's."""


def lay_out(run: Path, folder: Path, setting: str = "run") -> Path:
    """Make a folder with ``model.safetensors``, ``config.json``, ``README.md`` and ``MODEL_CARD.md``.

    Args:
        run: the folder of a run, or of a sweep: its winner's.
        folder: where; an export.json and its files that are there already are described, and stay.
        setting: that named the run, for messages.

    Returns:
        The folder.

    Raises:
        ValueError: there is no finished run; one line.
        FileNotFoundError: its weights are gone.
    """
    place = run_at(run, setting)
    weights = weights_at(place, setting)
    about = description.read(weights, setting)
    folder.mkdir(parents=True, exist_ok=True)
    said = {**asdict(about), "settings": without_folders(about.settings)}
    with atomic_path(folder / HUB_WEIGHTS) as temporary:
        if said["settings"] == about.settings:
            shutil.copyfile(weights, temporary)
        else:
            save_file(load_file(weights), temporary, {METADATA: json.dumps(said, sort_keys=True)})
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
    export = read_json(inside(folder, EXPORT)) if (folder / EXPORT).exists() else None
    model_card.write(folder, place, export, names=(model_card.FILE, model_card.HUB_FILE))
    return folder


def to_send(folder: Path) -> list[Path]:
    """The files in a folder that may be sent: `SENT`, and the exported one.

    Raises:
        ValueError: one is a link to somewhere else.
    """
    names = list(SENT)
    if (folder / EXPORT).exists():
        names.append(str(read_json(inside(folder, EXPORT)).get("file")))
    return [inside(folder, name) for name in sorted(names) if (folder / name).is_file()]


def clear(folder: Path) -> None:
    """Remove what an earlier export left: its file, what was sent with it, its robustness. What else is there stays.

    So does the model card: the next one takes over what somebody has filled in.
    """
    with suppress(ValueError, AttributeError):  # there was none, or another program's
        name = str(read_json(inside(folder, EXPORT)).get("file"))
        if name.startswith("student."):
            inside(folder, name).unlink(missing_ok=True)
    for name in set(SENT) - {model_card.FILE}:
        (folder / name).unlink(missing_ok=True)
    robustness_artifacts.remove(folder)


def check(name: str, *, dry_run: bool) -> None:
    """See that a name is one of a repository and, unless nothing is sent, that there are library and token.

    Raises:
        ValueError: it is not, or there are not; one line.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
        raise ValueError(f"push must be NAMESPACE/NAME, got {name}")
    if dry_run:
        return
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"push must be null unless huggingface_hub is installed (pip install 'kdexp[hub]'), got {name}"
        ) from error
    if huggingface_hub.get_token() is None:
        raise ValueError(f"push needs a token in HF_TOKEN, or from `hf auth login`, got none for {name}")


def push(folder: Path, name: str, *, dry_run: bool) -> list[str]:
    """Send a folder to the Hub, or say what would be sent.

    Args:
        folder: see `lay_out`.
        name: ``NAMESPACE/NAME``; a repository that is not there yet is made, and is private.
        dry_run: whether nothing is sent; then neither library nor token nor network is needed.

    Returns:
        A line for each file with its bytes, and where they are, or would be.

    Raises:
        ValueError: another name, no library, no token, or no way to the Hub; one line.
    """
    check(name, dry_run=dry_run)
    files = to_send(folder)
    if not any(path.name == HUB_WEIGHTS for path in files):
        raise ValueError(f"push must have a folder with {HUB_WEIGHTS}, got {folder}")
    lines = [f"{path.name}  {path.stat().st_size:,} bytes" for path in files]
    if dry_run:
        return [*lines, f"would be sent to https://huggingface.co/{name} (dry_run=true)"]
    import huggingface_hub

    try:
        api = huggingface_hub.HfApi()
        api.create_repo(name, private=True, exist_ok=True)
        patterns = [path.name for path in files]
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=patterns, commit_message="kdexp")
    except Exception as error:  # of the library, of HTTP, of the network
        raise ValueError(f"push must reach the Hub, got {name}: {one_line(error)}") from error
    return [*lines, f"sent to https://huggingface.co/{name}"]


def publish(folder: Path, run: Path, export: Record, name: str | None, *, dry_run: bool) -> list[str]:
    """Write the model card beside an export and, where a repository is named, send the folder there: see `push`.

    Args:
        folder: of the export.
        run: its run folder.
        export: the content of export.json.
        name: ``NAMESPACE/NAME``; None: nothing is sent.
        dry_run: see `push`.

    Returns:
        Lines for the terminal.
    """
    sent = []
    if name is None:
        model_card.write(folder, run, export)
    else:
        sent = push(lay_out(run, folder), name, dry_run=dry_run)
    return [printable(line) for line in (f"model card    {folder / model_card.FILE}", *sent)]
