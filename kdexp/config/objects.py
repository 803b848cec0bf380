"""Where a configuration becomes objects."""

from collections.abc import Callable
from typing import Any

from kdexp.config import trust
from kdexp.config.compose import plain
from kdexp.config.require import Values


def instantiate(node: Values, slot: str, *args: object, prefix: str = "") -> Any:
    """Call what a part of a configuration names: see `kdexp.config.trust.build`."""
    return trust.build(plain(node), slot, *args, prefix=prefix)


def target(node: Values, slot: str) -> Callable[..., object]:
    """What the `_target_` of a part of a configuration names, without calling it: see `kdexp.config.trust.find`."""
    return trust.find(node["_target_"], slot)
