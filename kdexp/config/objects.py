"""Where a configuration becomes objects."""

from typing import Any

from omegaconf import OmegaConf

from kdexp.config import trust
from kdexp.config.compose import plain


def instantiate(config: Any, slot: str, *args: Any) -> Any:
    """Call what a part of a configuration names: see `kdexp.config.trust.build`."""
    return trust.build(plain(config) if OmegaConf.is_config(config) else config, slot, *args)


def target(config: Any, slot: str) -> Any:
    """What a configuration's `_target_` names, without calling it: see `kdexp.config.trust.find`."""
    return trust.find(config["_target_"], slot)
