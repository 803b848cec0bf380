"""What configurations are put together of is read once in a process, and put together once for the same options.

The jobs of a sweep differ in a few values; to read some thirty files again for each takes longer than all else.
"""

from copy import copy, deepcopy

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

_MOST = 64
"""Choices of options that are kept, about 1 MB each."""

_files: dict[tuple[str, str], ConfigResult | None] = {}
_composed: dict[tuple[object, ...], DictConfig] = {}


class _Files(ConfigRepository):
    """Files of options; those of installed packages are read once, since they do not change.

    Hydra copies it for every list of options that it looks at. The copy has the same sources: with copies of their own,
    of all dataclasses of settings, that takes more than half of a program's start.
    """

    def __deepcopy__(self, memo: object) -> "_Files":
        return copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "pkg":
            return super().load_config(config_path)
        key = source.path, config_path
        if key not in _files:
            _files[key] = super().load_config(config_path)
        return _files[key]


class LoadedOnce(ConfigLoaderImpl):
    """Hydra's loader, which remembers."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = _Files(config_search_path)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = copy(super()._load_single_config(default, repo))
        loaded.config = deepcopy(loaded.config)  # it becomes a part of what is composed
        return loaded

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        sources = [(source.scheme(), source.path) for source in repo.get_sources()]
        if "file" in dict(sources):
            return super()._compose_config_from_defaults_list(defaults, repo)
        key = (*sources, *((one.config_path, one.package, one.primary) for one in defaults))
        if key not in _composed:
            if len(_composed) == _MOST:
                del _composed[next(iter(_composed))]
            _composed[key] = super()._compose_config_from_defaults_list(defaults, repo)
        return deepcopy(_composed[key])
