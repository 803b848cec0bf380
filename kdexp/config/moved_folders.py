"""Folders in a configuration: of a run that was moved, and absolute for results.json."""

import os
from collections.abc import Mapping
from typing import Any

from kdexp.config.require import Values


def moved(values: Values, *, data_dir: str | None, store_dir: str | None) -> dict[str, Any]:
    """The configuration of a run whose folders lie elsewhere now; None: where it says.

    Args:
        values: plain.
        data_dir: of all its data sets.
        store_dir: of its teachers.
    """
    own = values if data_dir is None else {key: _with_data_in(data_dir, key, value) for key, value in values.items()}
    return {**own} if store_dir is None else {**own, "store_dir": store_dir}


def _with_data_in(data_dir: str, name: str, node: object) -> object:
    if name == "data_dir":
        return data_dir
    if isinstance(node, Mapping):
        return {key: _with_data_in(data_dir, key, value) for key, value in node.items()}
    return node


def anchored(values: Values) -> dict[str, Any]:
    """The configuration with absolute folders, for results.json, which is read from elsewhere.

    Args:
        values: plain.
    """
    own = {key: _anchored(key, value) for key, value in values.items()}
    return own | {"store_dir": os.path.abspath(values["store_dir"])}


def _anchored(name: str, node: Any) -> object:
    if isinstance(node, Mapping):
        return {key: _anchored(key, value) for key, value in node.items()}
    if name == "data_dir" and isinstance(node, list):
        return [os.path.abspath(folder) for folder in node]
    return os.path.abspath(node) if name == "data_dir" else node
