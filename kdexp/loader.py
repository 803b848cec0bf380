"""Hydra's loader of configurations, with kdexp's rules for what a file of options may say."""

import re
from collections.abc import Mapping
from typing import Any

import hydra._internal.hydra as hydra_itself
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from kdexp.foreign import check_passwords, check_texts

_SWEEPER = ("params", "grids", "trials", "metric", "pruner", "seed", "seeds", "max_batch_size")


def install() -> None:
    """Let the programs of this process compose their configurations by these rules."""
    hydra_itself.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]


class Loader(ConfigLoaderImpl):
    """Loads what is to be run; what Hydra itself runs is kdexp's, an installed plugin's or the command line's to say.

    Hydra calls what its own part of a configuration names (loggers, callbacks, plugins' arguments), changes the
    environment and writes where it says. A yaml of ``--config-dir`` may come from somebody else.
    """

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose a configuration.

        Raises:
            ValueError: see `check_hydra` and `kdexp.foreign.check_texts`.
        """
        config = super().load_configuration(*args, **kwargs)
        own: Any = OmegaConf.to_container(config, resolve=False)
        check_texts({key: value for key, value in own.items() if key != "hydra"})
        check_passwords(own)  # Hydra's own part is written into .hydra, too
        return config

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        if loaded.path.startswith("file:"):
            said: Any = OmegaConf.to_container(loaded.config, resolve=False)
            if "hydra" in said:
                check_hydra(said["hydra"], f"{default.config_path}.yaml")
                check_texts({"hydra": said["hydra"]})
        return loaded


def check_hydra(part: Any, file: str) -> None:
    """See that a file says of Hydra's own part nothing but what is swept, and numbers for the launcher.

    Args:
        part: what the file has under ``hydra``; an interpolation there might stand for anything.
        file: its name, for messages.

    Raises:
        ValueError: it says something else.
    """
    for key, value in part.items() if isinstance(part, Mapping) else [("", None)]:
        for name in _not_a_files(key, value):
            setting = ".".join(filter(None, ("hydra", key, name)))
            raise ValueError(
                f"{file} must leave {setting} to the command line: of hydra a file may set mode, sweeper "
                "and numbers of launcher"
            )


def _not_a_files(key: str, value: Any) -> list[str]:
    """What a file may not say under a key of hydra's; an empty name: anything."""
    if key == "mode":
        return []
    if key not in ("sweeper", "launcher") or not isinstance(value, Mapping):
        return [""]
    if key == "launcher":
        return [name for name, number in value.items() if not isinstance(number, int | float | None)]
    grids = [value.get("params") or {}, *(value.get("grids") or [])]
    if not all(isinstance(grid, Mapping) for grid in grids):
        return ["params"]
    swept = [name for grid in grids for name in grid if "hydra" in re.split(r"\W+", str(name))]
    return [name for name in value if name not in _SWEEPER] + swept
