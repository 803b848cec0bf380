"""Folders in a configuration: of a run that was moved, and absolute for results.json."""

import os
from collections.abc import Mapping
from typing import Any


def moved(config: Mapping[str, Any], *, data_dir: str | None, store_dir: str | None) -> dict[str, Any]:
    """The configuration of a run whose folders lie elsewhere now; None: where it says.

    Args:
        config: plain values.
        data_dir: of all its data sets.
        store_dir: of its teachers.
    """
    own = dict(config) if data_dir is None else _with_data_in(data_dir, config)
    return own if store_dir is None else own | {"store_dir": store_dir}


def _with_data_in(data_dir: str, node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {key: data_dir if key == "data_dir" else _with_data_in(data_dir, value) for key, value in node.items()}


def anchored(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with absolute folders, for results.json, which is read from elsewhere.

    Args:
        config: plain values.
    """
    own: dict[str, Any] = _anchored(config)
    return own | {"store_dir": os.path.abspath(own["store_dir"])}


def _anchored(node: Any, name: str = "") -> Any:
    if isinstance(node, Mapping):
        return {key: _anchored(value, key) for key, value in node.items()}
    if name == "data_dir" and isinstance(node, list):
        return [os.path.abspath(folder) for folder in node]
    return os.path.abspath(node) if name == "data_dir" else node
