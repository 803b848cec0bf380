"""Hydra's loader of configurations, with kdexp's rules for what a file of options may say."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import hydra._internal.hydra as hydra_itself
from hydra._internal.config_repository import IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdexp.config import quick, renamed
from kdexp.config.loaded_once import LoadedOnce
from kdexp.config.suggest import did_you_mean, nearest
from kdexp.config.untrusted import check_passwords, check_texts

_SWEEPER = ("params", "grids", "n_trials", "metric", "pruner", "seed", "final_seeds", "max_batch_size")


def install() -> None:
    """Let the programs of this process compose their configurations by these rules."""
    hydra_itself.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]


class Loader(LoadedOnce):
    """Loads what is to be run; what Hydra itself runs is kdexp's, an installed plugin's or the command line's to say.

    Hydra calls what its own part of a configuration names (loggers, callbacks, plugins' arguments), changes the
    environment and writes where it says. A yaml of ``--config-dir`` may come from somebody else.
    """

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a configuration.

        Raises:
            ValueError: there is no such setting or option, and the nearest is named; a value has to be quoted; see
                `check_hydra` and `kdexp.config.untrusted.check_texts`.
        """
        for text in overrides:
            group, _, option = text.lstrip("+").partition("=")
            named = _IN_LIST.findall(option) if option[:1] == "[" else [option]
            wrong = [name for name in named if _NO_NAME.fullmatch(name)]
            if option == "[]" and group in _ONE_OPTION:
                wrong = [option]
            if wrong and (said := self._no_option(group, wrong[0])):  # Hydra does not say of which group
                raise ValueError(said)
        try:
            config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except OverrideParseException as error:
            raise ValueError(_not_parsed(error)) from error
        except MissingConfigException as error:
            group, _, option = (error.missing_cfg_file or "").rpartition("/")
            raise ValueError(self._no_option(group, option) or str(error).partition("\n")[0]) from None  # the same text
        except ConfigCompositionException as error:
            several = _SEVERAL.search(str(error))
            if several is not None:
                raise ValueError(self._several(several[1], config_name, overrides)) from error
            added = _ADDED.search(str(error))
            if added is not None:
                raise ValueError(
                    f"{added[1]} has a default option, so it is typed without a +: {added[1]}={added[2]}"
                ) from error
            of_file = _NOT_IN_TYPE.search(str(error))
            if of_file is not None:
                renamed.refuse_setting(of_file[1])
            key = _NO_SETTING.search(str(error))
            if key is None:
                raise
            raise ValueError(self._no_setting(key[1], config_name, overrides, run_mode)) from error
        own: Any = OmegaConf.to_container(config, resolve=False)
        renamed.refuse(own)
        unread = next(_untyped(config), None)  # added with a +
        if unread is not None:
            raise ValueError(self._no_setting(unread, config_name, overrides, run_mode))
        if config.get("quick"):
            for name, most in quick.shortened(own, {_key(text) for text in overrides}).items():
                OmegaConf.update(config, name, most)
        check_texts({key: value for key, value in own.items() if key != "hydra"})
        check_passwords(own)  # Hydra's own part is written into .hydra, too
        return config

    def _no_option(self, group: str, option: str) -> str:
        """What to say of an option that a group does not have; nothing where there is no such group."""
        options = self.get_group_options(group)
        if not options:
            return ""
        elsewhere = [f"{other}={option}" for other in self.list_groups("") if option in self.get_group_options(other)]
        close = renamed.new_option(group, option) or nearest(option, options)
        suggested = elsewhere[:1] or ([f"{group}={close}"] if close else [])
        is_name = option[:1].isalpha() and not _NO_NAME.fullmatch(option)
        if option == "null" and group in _OPTIONAL:
            suggested = [f"{group}=[]"]
        if "timm" in options and not elsewhere and is_name:  # which has too many names to be known here
            suggested.append(_of_timm(group, option))
        hint = f"; did you mean {' or '.join(suggested)}?" if suggested else ""
        return f"there is no {group}={option}{hint} (of {group} there are {', '.join(options)})"

    def _several(self, typed: str, config_name: str | None, overrides: list[str]) -> str:
        """What to say of several values for one setting outside a sweep; what else is wrong comes first."""
        try:
            one = [_first(text) for text in overrides]
            self.load_configuration(config_name, one, RunMode.RUN, validate_sweep_overrides=False)
        except ValueError as error:
            return f"{error} Several values need -m, got {typed}"
        key, _, values = typed.partition("=")
        as_list = ""
        if "(" not in values:
            with suppress(ValueError, ConfigCompositionException):
                texts = [f"{key}=[{values}]" if text == typed else _first(text) for text in overrides]
                self.load_configuration(config_name, texts, RunMode.RUN, validate_sweep_overrides=False)
                as_list = f" (a list is typed {key}=[{values}])"
        return f"{key} must be one value without -m, got {values}; -m {typed} runs each{as_list}"

    def _no_setting(self, key: str, config_name: str | None, overrides: Sequence[str], run_mode: RunMode) -> str:
        typed = next((text for text in overrides if _key(text) == key), key)
        groups = self.list_groups("")
        chosen = [
            text
            for text in overrides
            if (_key(text) in groups or _key(text).startswith("hydra/")) and _key(text) != key
        ]
        try:
            config = super().load_configuration(config_name, chosen, run_mode, validate_sweep_overrides=False)
        except (ConfigCompositionException, OverrideParseException):  # that is a mistake, too
            config = super().load_configuration(config_name, [], run_mode)
        choices = [group for group in config.hydra.runtime.choices if not group.startswith("hydra/")]
        if key in groups and "=" in typed and config_name == "train":
            option = typed.partition("=")[2]
            told = f"{key}={renamed.new_option(key, option) or option}"
            return f"{key} has no default option, so it is typed with a +: +{told}"
        # Every network takes them, whether or not its option has them.
        if _OF_EVERY_NETWORK.fullmatch(key):
            return f"{key} has no default, so it is typed with a +: +{typed.lstrip('+')}"
        own = "hydra" if key.startswith("hydra.") else ""
        plain: Any = OmegaConf.to_container(config.hydra if own else config, resolve=False)
        value = typed.partition("=")[2]
        known = {*_names(plain, own), *([] if own else choices)}
        above, dot, last = key.rpartition(".")
        new = renamed.new_name({own: plain} if own else plain, key)
        usual = [new] if new else [f"{above}{dot}{name}" for name in _USUAL_NAMES.get(last, ())]
        usual = [name for name in usual if name in known]
        if usual:
            return f"there is no setting {key}; did you mean {' or '.join(self._typed(name, value) for name in usual)}?"
        hint = did_you_mean(key, known)
        as_option = [f"{group}={value}" for group in choices if value in self.get_group_options(group)]
        if not hint and as_option:
            hint = f"; did you mean {' or '.join(as_option)}?"
        return f"there is no setting {key}{hint or '; --cfg job shows all that there are'}"

    def _typed(self, name: str, value: str) -> str:
        """How a setting is typed, with the value where that is an option or a network."""
        options = self.get_group_options(name)
        if not options or not value:
            return name
        return _of_timm(name, value) if "timm" in options and value not in options else f"{name}={value}"

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        if loaded.path.startswith("file:"):
            said: Any = OmegaConf.to_container(loaded.config, resolve=False)
            if "hydra" in said:
                check_hydra(said["hydra"], f"{default.config_path}.yaml")
                check_texts({"hydra": said["hydra"]})
        return loaded


# What others call a setting, which is not like its name.
_USUAL_NAMES = {
    **dict.fromkeys(("T", "tau"), ("temperature",)),
    **dict.fromkeys(("model", "arch", "net", "network", "backbone"), ("student", "teacher")),
}
_OF_EVERY_NETWORK = re.compile(
    r"(student|teacher)\.(resize|arguments\.\w+)|student\.init_from_teacher|teacher(\.members\.\w+)?\.classes"
)
_IN_LIST = re.compile(r"[^\[\],\s]+")
_NO_NAME = re.compile(r"null|true|false|[-+.\d]+")
_ONE_OPTION = ("dataset", "teacher", "student", "loss", "optimizer", "scheduler", "trainer", "tracking")
_OPTIONAL = ("augment", "feature_loss", "scheme", "distillation", "robustness", "experiment")
_SEVERAL = re.compile(
    r"^(?:Ambiguous value for argument|Sweep parameters) '(.*)'(?: requires --multirun)?$", re.MULTILINE
)
_ADDED = re.compile(r"^Multiple values for ([\w/]+)\. To override a value use 'override \1: (.*)'", re.MULTILINE)
_NOT_IN_TYPE = re.compile(r"^Key '\w+' not in '\w+'\s+full_key: ([\w.]+)$", re.MULTILINE)  # of a yaml file
_NO_SETTING = re.compile(r"(?:Could not (?:override|delete from config\.|delete)|config group) '([\w./]+)'")


def _of_timm(role: str, name: str) -> str:
    """How a network of timm is typed."""
    return f"{role}=timm {role}.name={name}"


def _first(override: str) -> str:
    """The override with the first of its values; as it is where it has one, an interval or a pattern."""
    parsed = OverridesParser.create().parse_override(override)
    if parsed.value_type not in (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP):
        return override
    return f"{override.partition('=')[0]}={next(parsed.sweep_string_iterator())}"


def _key(override: str) -> str:
    """The setting or group that an override names."""
    return re.split("[=@]", override.lstrip("+~"), maxsplit=1)[0]


def _names(node: object, above: str) -> Iterator[str]:
    """The settings in a configuration, whole parts among them."""
    for key, value in node.items() if isinstance(node, dict) else []:
        name = f"{above}.{key}" if above else str(key)
        if name not in ("hydra", "choices") and not str(key).startswith("_"):
            yield name
            yield from _names(value, name)


def _untyped(node: object, above: str = "") -> Iterator[str]:
    """Keys of a part that has a dataclass, which do not stand in it."""
    kind = OmegaConf.get_type(node)
    if not isinstance(node, DictConfig) or not is_dataclass(kind):
        return
    known = {field.name for field in fields(kind)}
    for key in map(str, node):
        name = f"{above}{key}"
        if key in known:
            yield from _untyped(node._get_node(key), f"{name}.")
        elif name != "hydra":
            yield name


def _not_parsed(error: OverrideParseException) -> str:
    """What is wrong with an override that Hydra's grammar does not know, most often a path that has to be quoted."""
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"a setting must be typed as SETTING=VALUE, got {key}"
    is_closed = all(value.count(a) == value.count(b) for a, b in ("[]", "{}", "()"))
    if not is_closed or value.count("'") % 2 or value.count('"') % 2 or value[:1] in ("[", "{"):
        return f"{key} must have closed brackets and quotes, got {value}: {error.message.splitlines()[0]}"
    quoted = shlex.quote(f'{key}="{value}"')
    return f"{key} must be in two pairs of quotes, the shell's and Hydra's, with characters like these: {quoted}"


def check_hydra(part: object, file: str) -> None:
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
            renamed.refuse({"hydra": {key: value}})
            raise ValueError(
                f"{file} must leave {setting} to the command line: of hydra a file may set mode, sweeper "
                "and numbers of launcher"
            )


def _not_a_files(key: str, value: object) -> list[str]:
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
