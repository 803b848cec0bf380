"""What is read from a folder that may be somebody else's, and what must not be written into one's own.

A run folder says what was computed. Where this machine writes, whom it contacts and what it fetches is the reader's.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdexp.config import trust
from kdexp.config.renamed import upgrade
from kdexp.config.require import Values

VARIABLES = ("KDEXP_DATA_DIR", "KDEXP_STORE_DIR", "HOME")
"""What a configuration may read from the environment: its values are written into results.json and sent to trackers."""
_STORED = ("teachers", "teacher-measures", "teacher-outputs")  # one of these makes a folder a store
# ://user:password@ of an address, and ?password=... behind it.
_PASSWORD = re.compile(
    r"(?<=://)([^/\s:@]*):[^/\s]*@|([?&]\w*(?:passw|pwd|token|secret|key)\w*=)[^&\s]+", re.IGNORECASE
)
# Control characters but tabs and line ends: a terminal obeys them; those that turn the direction of writing; and bytes
# of a file's name that are no UTF-8, which cannot be written.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPED = re.compile(f"[\t\n\\\\]|{_OBEYED.pattern}")
_FORMULA = tuple("=+-@\t\n'")
# A path from the root of the file system, to its last part, also as file:/// and sqlite:////; no address of the web,
# no fraction.
_ABOVE = re.compile(r"(?:(?<=file://)|(?<=:///)|(?<![\w/.~-]))/(?:[^\s/'\",;]+/)*(?=[^\s/'\",;])")


def stored(values: Values) -> dict[str, Any]:
    """A configuration from a file of results as this machine takes it; every such configuration goes through here.

    It keeps what was computed, and where the data lie. Nothing is downloaded; the store is the reader's own unless the
    run's is here; trackers are the reader's own, too: only which tool it was, and the run's labels in it, are kept.

    Args:
        values: plain, as JSON gives them.

    Raises:
        ValueError: it holds an interpolation, or calls what a configuration may not call.
    """
    for setting, text in _texts(values):
        if "${" in text:
            raise ValueError(f"config.{setting} must be a plain value in a file of results, got {text!r}")
    values = upgrade(values)
    trust.check(values)
    own: dict[str, Any] = {key: _without_downloads(key, value) for key, value in values.items()}
    readers = os.environ.get("KDEXP_STORE_DIR") or str(Path.home() / ".cache" / "kdexp")
    store = Path(own["store_dir"])
    if not any((store / name).is_dir() for name in _STORED):
        own["store_dir"] = readers
    elif store.resolve() != Path(readers).resolve():
        check_folder(store, "store_dir")
    tracking = own["tracking"]
    kept = tracking["wandb"] if tracking.get("wandb") in ("offline", "disabled") else "auto"
    return own | {"tracking": {**tracking, "wandb": kept, "entity": None, "uri": tracking_server()}}


def _without_downloads(name: str, node: object) -> object:
    if name == "download":
        return False
    if isinstance(node, Mapping):
        return {key: _without_downloads(key, value) for key, value in node.items()}
    return [_without_downloads("", value) for value in node] if isinstance(node, list) else node


def _texts(node: object, setting: str = "") -> Iterator[tuple[str, str]]:
    """Every string in nested values, with its place."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{setting}.{key}" if setting else str(key))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _texts(value, f"{setting}.{number}")
    elif isinstance(node, str):
        yield setting, node


def check_texts(settings: Values) -> None:
    """See that settings give nothing away: they are written into the run folder and sent to trackers.

    Args:
        settings: its values, with interpolations that are not resolved yet.

    Raises:
        ValueError: an interpolation that reads another environment variable than `VARIABLES` (or might, being put
            together or decoded when it is resolved); a password in an address.
    """
    for setting, text in _texts(settings):
        for found in re.finditer(r"\$\{\s*([^:}]*)(?::\s*(\w*)\s*[,}])?", text):
            name, argument = found[1].strip(), found[2]
            reads = name == "oc.env" and argument not in VARIABLES
            if reads or "$" in name or name in ("oc.create", "oc.decode"):
                raise ValueError(
                    f"{setting} must read no environment variable but {', '.join(VARIABLES)}, because "
                    f"settings are written into results, got {text}"
                )
    check_passwords(settings)


def check_passwords(settings: Values) -> None:
    """See that no address in settings has a password.

    Raises:
        ValueError: one has.
    """
    for setting, text in _texts(settings):
        if without_password(text) != text:
            raise ValueError(
                f"{setting} must hold no password, because settings are written into results (MLflow's: "
                f"MLFLOW_TRACKING_URI), got {without_password(text)}"
            )


def without_password(text: str) -> str:
    """A text with the passwords in its addresses replaced by stars."""
    return _PASSWORD.sub(lambda found: f"{found[2]}***" if found[2] else f"{found[1]}:***@", text)


def printable(text: object) -> str:
    """A text for the terminal: what that would obey is written out, and the passwords in its addresses are left out."""
    return without_password(_OBEYED.sub(lambda found: ascii(found[0])[1:-1], str(text)))


def escaped(text: str) -> str:
    r"""A text in one line, nothing of it lost: control characters and backslashes as Python writes them.

    ``.encode("latin-1", "backslashreplace").decode("unicode_escape")`` gives it back.
    """
    return _ESCAPED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def cell(text: str) -> str:
    """A text for a cell of a csv file: one that a spreadsheet would take for a formula has a ``'`` before it.

    These begin with ``= + - @``, a tab or a line end, and are no number (OWASP,
    https://owasp.org/www-community/attacks/CSV_Injection). One that begins with ``'`` gets a second one, so that the
    first can be taken away again.
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def without_folders(node: object) -> object:
    """Nested values that are passed on: of a path of this machine its last part is left, in texts, too."""
    if isinstance(node, Mapping):
        return {key: without_folders(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [without_folders(value) for value in node]
    if not isinstance(node, str):
        return node
    name, equals, path = node.rpartition("=")
    return f"{name}{equals}{Path(path).name}" if path.startswith("/") else _ABOVE.sub("", node)


def tracking_server() -> str:
    """MLflow's store: what the environment's MLFLOW_TRACKING_URI says, less its password, or a file here."""
    return without_password(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")


def inside(folder: Path, name: object) -> Path:
    """The path of something in a folder, by a name that comes from a file.

    Raises:
        ValueError: it is not in the folder, or a link in it leads out.
    """
    path = folder / str(name)
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that is too long or has a null byte
        raise ValueError(f"{folder} must hold what its files name, got {str(name)!r}: {error}") from error
    if not is_inside:
        raise ValueError(f"{folder} must hold what its files name, got {str(name)!r}, which is outside")
    return path


def check_folder(folder: Path, setting: str) -> None:
    """See that what is read in a run folder is its own, and that what is written into it stays there.

    Args:
        folder: of a run.
        setting: the setting that named it, for messages.

    Raises:
        ValueError: a link in it leads out; it has settings of W&B, which would say where to send the run.
    """
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink() and not _leads_inside(path, folder):
                raise ValueError(f"{setting} must hold no link to what is outside, got {path}")
        if Path(place).name == "wandb":
            folders.clear()  # each of W&B's own folders in it has a link to its log
    for name in ("wandb", ".wandb"):
        if (folder / name / "settings").exists():
            raise ValueError(f"{setting} must hold no settings of W&B, got {folder / name / 'settings'}")


def _leads_inside(path: Path, folder: Path) -> bool:
    try:
        inside(folder, path.relative_to(folder))
    except ValueError:
        return False
    return True
