"""The splits of a Hugging Face data set in a folder, read as they lie there.

Nothing is fetched by name, no loading script is run, and nothing is written into a cache.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from kdexp.config.require import require
from kdexp.config.untrusted import inside
from kdexp.data import own
from kdexp.data.parquet_file import unpacked

_USUAL = {"val": ("validation", "valid", "val", "dev"), "test": ("test",)}
_NAMED = re.compile(r"(?<![a-z])(?:(train)(?:ing)?|(val)(?:id|idation)?|(dev)|(test)(?:ing)?)(?![a-z])")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


class StoredSplit(NamedTuple):
    """A split of a data set.

    Attributes:
        name: its name.
        rows: the library's `Dataset`, which gives Arrow tables.
        files: that it lies in.
    """

    name: str
    rows: Any
    files: Sequence[Path]

    def column(self, name: str) -> Any:
        """A column as Arrow has it (pyarrow.ChunkedArray)."""
        return self.rows.select_columns([name])[:].column(name)


def _library() -> ModuleType:
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        rule = "must be installed for dataset=huggingface: pip install 'kdexp[huggingface]'"
        raise ValueError(f"datasets {rule}") from error
    library.disable_progress_bars()
    return library


def splits_of(folder: Path) -> dict[str, StoredSplit]:
    """The splits in a folder by name: what ``save_to_disk`` wrote, or parquet or Arrow files.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the library is not installed, or a file is broken: one line.
    """
    library = _library()
    if not folder.is_dir():
        raise ValueError(f"dataset.source.folder must be a folder, got the file {folder}")
    if (folder / "dataset_dict.json").is_file():
        with _reading(folder):
            names = [str(name) for name in json.loads((folder / "dataset_dict.json").read_text())["splits"]]
            return {name: _saved(library, inside(folder, name), name) for name in names}
    if (folder / "state.json").is_file():
        with _reading(folder):
            return {"train": _saved(library, folder, "train")}
    found = _files(folder)
    with _reading(folder):
        return {name: _of_files(library, name, files) for name, files in found.items()}


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the library makes of files that are not its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"dataset.source.folder must hold a whole data set, got {folder}: {reason}") from error


def _saved(library: ModuleType, folder: Path, name: str) -> StoredSplit:
    state = json.loads((folder / "state.json").read_text())
    files = [inside(folder, each["filename"]) for each in state["_data_files"]]
    if not files:
        raise ValueError(f"{name} must have rows, got none")
    return StoredSplit(name, library.load_from_disk(str(folder), keep_in_memory=False).with_format("arrow"), files)


def _files(folder: Path) -> dict[str, list[Path]]:
    """The data files below a folder by split."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".parquet", ".arrow") and path.is_file()]
    if not paths:
        scripts = [path.name for path in sorted(folder.glob("*.py"))]
        found = f"{folder} with {scripts[0]}, a loading script, which is not run" if scripts else folder
        rule = "must be what save_to_disk wrote, or have parquet or arrow files"
        raise FileNotFoundError(f"dataset.source.folder {rule}, got {found}")
    found_of: dict[str, list[Path]] = {}
    for path in paths:
        found_of.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    for name, files in found_of.items():
        kinds = {(path.parent, path.suffix) for path in files}
        rule = f"must have the files of {name} in one folder, all parquet or all arrow"
        require(len(kinds) == 1, "dataset.source.folder", rule, own.shown(path.relative_to(folder) for path in files))
    return found_of


def _split_of(path: Path) -> str:
    """Which split a file is of, by its name or else its folder's; its own name where neither says."""
    for part in reversed(path.with_suffix("").parts):
        named = _NAMED.search(part.lower())
        if named:
            return "validation" if named[2] else next(name for name in named.groups() if name)
    return _SHARD.sub("", path.stem)


def _of_files(library: ModuleType, name: str, files: Sequence[Path]) -> StoredSplit:
    if files[0].suffix == ".arrow":
        parts = [library.Dataset.from_file(str(file)) for file in files]
    else:
        parquet = importlib.import_module("pyarrow.parquet")
        for file in files:
            own.check_unpacked(file, unpacked(parquet.read_metadata(file)))
        parts = [library.Dataset(parquet.read_table(file)) for file in files]  # the library's own would fill a cache
    return StoredSplit(name, library.concatenate_datasets(parts).with_format("arrow"), files)


def parts_of(found: Mapping[str, StoredSplit], at: Path, given: Mapping[str, str | None]) -> dict[str, StoredSplit]:
    """Which splits are learned from (``file``, as in `kdexp.data.table`), chosen by (``val``) and tested on (``test``).

    Args:
        found: see `splits_of`.
        at: their folder.
        given: the settings ``train``, ``val`` and ``test``; None: the split of the usual name, where it is there.

    Raises:
        ValueError: there is no such split, it is empty, or it stands in two places: one line.
    """
    chosen = {setting: name for setting, name in given.items() if name is not None}
    chosen.setdefault("train", "train" if len(found) > 1 else next(iter(found), "train"))
    for setting, name in chosen.items():
        rule = f"must be a split of {at.name} ({own.shown(found)})"
        require(name in found, f"dataset.source.{setting}", rule, name)
        require(len(found[name].rows), "dataset.source.folder", f"must have rows in {name}", f"none in {at}")
    for setting, usual in _USUAL.items():
        free = [name for name in usual if name in found and len(found[name].rows) and name not in chosen.values()]
        if setting not in chosen and free:
            chosen[setting] = free[0]
    twice, splits = len(set(chosen.values())) < len(chosen), own.shown(chosen.values())
    require(not twice, "dataset.source", "must have different splits for train, val and test", splits)
    return {"file" if setting == "train" else setting: found[name] for setting, name in chosen.items()}
