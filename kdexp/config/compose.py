"""From names of options to a configuration: Hydra's composition, its resolvers, its errors in one line."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from kdexp.config import untrusted
from kdexp.config.loader import Loader
from kdexp.config.require import missing_values, require
from kdexp.config.schema import Config
from kdexp.data.settings import Dataset
from kdexp.teacher.settings import cached_views

# Hydra 1.4 will warn about any explicit value: this is the one line to change then.
HYDRA_VERSION_BASE = "1.3"
ConfigStore.instance().store(name="schema", node=Config, provider="kdexp")
OmegaConf.register_new_resolver(
    "kdexp.num_outputs", lambda kind, classes: 1 if kind == "binary" else classes, replace=True
)
OmegaConf.register_new_resolver("kdexp.views", lambda mode: cached_views(mode), replace=True)
OmegaConf.register_new_resolver("kdexp.augment_seed", lambda mode, seed: seed if mode == "none" else 0, replace=True)
OmegaConf.register_new_resolver("kdexp.epochs", lambda epochs, share: round(epochs / max(share, 0.1)), replace=True)
OmegaConf.register_new_resolver("kdexp.tracking_server", untrusted.tracking_server, replace=True)
OmegaConf.register_new_resolver(
    "kdexp.inferred", lambda name, *unread, _parent_: _inferred(name, _parent_, *unread), replace=True
)
OmegaConf.register_new_resolver(
    "kdexp.if_given", lambda value, one, other: _node(other if value is None else one), replace=True
)
OmegaConf.register_new_resolver("kdexp.names", lambda group: "+".join(group) or "none", replace=True)


def compose(overrides: Sequence[str] = (), config_name: str = "train", **settings: object) -> DictConfig:
    """The configuration that ``kdexp-train OVERRIDES`` would run, for use from Python.

    Args:
        overrides: as on the command line: ``["dataset=digits", "alpha=0.3"]``.
        config_name: the primary configuration in conf/.
        settings: plain top-level values that need no quoting, ``output_dir=tmp_path`` above all.

    Returns:
        The configuration, with every interpolation resolved.

    Raises:
        ValueError: an unknown option or key, a value of the wrong type, or no output_dir where it takes one.
    """
    release_data()  # a file may be another than at the last call
    quoted = [f"{key}={json.dumps(str(value))}" for key, value in settings.items()]
    with initialize_config_module("kdexp.conf", version_base=HYDRA_VERSION_BASE):
        try:
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.config_loader = Loader(hydra.config_loader.get_search_path())
            config = hydra_compose(config_name, [*overrides, *quoted], return_hydra_config=True)
            HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
            with open_dict(config):
                del config["hydra"]
            OmegaConf.resolve(config)
        except Exception as error:
            if "${hydra:runtime.output_dir}" in str(error):  # Hydra makes a folder for programs alone
                raise ValueError("output_dir must be given from Python, compose(..., output_dir=DIR)") from error
            raise ValueError(one_line(error)) from error
    return config


def _node(value: object) -> object:
    """What a resolver gives, as OmegaConf takes it everywhere: a list is a node."""
    return OmegaConf.create(value) if isinstance(value, list) else value


def _inferred(name: str, dataset: Dataset, unread: object = None) -> object:
    """What the data say of a setting of conf/dataset that is left to them: see `kdexp.data.inferred`."""
    from kdexp.data.inferred import inferred  # here: --help must not wait for torch

    missing = missing_values(OmegaConf.to_container(dataset.source), "dataset.source")
    require(not missing, ", ".join(missing), "must be given", "nothing")
    source, val_fraction = plain(dataset.source), dataset.val_fraction
    return inferred(name, source, val_fraction=val_fraction, split_seed=dataset.split_seed, unread=unread)


def release_data(*, samples_only: bool = False) -> None:
    """Let go of data that were loaded to fill in settings, and unless `samples_only` of what is known of them."""
    inferred = sys.modules.get("kdexp.data.inferred")
    if inferred is not None:
        inferred.forget(samples_only=samples_only)


def dataset_option(name: str, data_dir: str) -> Dataset:
    """The configuration of another data set by the name of its option; a running program's ``--config-dir`` counts.

    Raises:
        ValueError: there is no such option.
    """
    require(re.fullmatch(r"[\w/-]+", name), "dataset", "must be the name of an option", name)
    if not GlobalHydra().is_initialized():
        found: Dataset = compose([f"dataset={name}"], data_dir=data_dir, output_dir="").dataset
        return found
    loader = GlobalHydra.instance().config_loader()
    overrides = [f"dataset={name}", f"data_dir={json.dumps(data_dir)}"]
    try:
        found = OmegaConf.create(plain(loader.load_configuration("train", overrides, RunMode.RUN).dataset))
    except HydraException as error:
        raise ValueError(one_line(error)) from error
    return found


_RAISED_IN_RESOLVER = re.compile(r"^\w*Error raised while resolving interpolation: ")


def one_line(error: BaseException) -> str:
    """What a composition error says, in one line, without Hydra's advice on how to read it."""
    cause = error.__cause__
    texts = [_RAISED_IN_RESOLVER.sub("", str(error), count=1)]
    if texts[0] != str(error):  # what is wrong is not the setting that was to be filled in
        return texts[0].splitlines()[0]
    if isinstance(error, InterpolationResolutionError) and isinstance(cause, ValueError | OSError):  # the same
        return one_line(cause)
    if isinstance(cause, OmegaConfBaseException | OSError) and str(cause) not in texts[0]:
        texts.append(str(cause))
    skipped = (
        "To append to your",
        "Config search path",
        "provider=",
        "object_type=",
        "reference_type=",
        "Key '",
        "See ",
    )
    lines = [line.strip().rstrip(".") for text in texts for line in text.splitlines()]
    kept: list[str] = []
    for line in lines:
        key = line.removeprefix("full_key: ") if line.startswith("full_key: ") else None
        if line and not line.startswith(skipped) and not (key and any(key in earlier for earlier in kept)):
            kept.append(line)
    return _of_type("; ".join(kept).replace(":; ", ": ").replace("':;", "':"))


_OF_TYPE = {
    "could not be converted to Integer": "a whole number",
    "could not be converted to Float": "a number",
    "is not a valid bool": "true or false",
    "is not Optional": "given",
}


def _of_type(text: str) -> str:
    """OmegaConf's words for a value of another type, as the rule that it breaks; any other text as it is."""
    typed = re.match(r"Error merging override \+*([^=]+)=(.*?); ", text)
    wanted = next((words for said, words in _OF_TYPE.items() if said in text), None)
    if typed is None or wanted is None:
        return text
    within = re.search(r"; full_key: ([\w.]+(\[\d+\])?)$", text)
    several = " in each of its values" if within and within[2] else ""
    return f"{typed[1]} must be {wanted}{several}, got {typed[2]}"


def plain(node: object) -> Any:
    """A configuration or a part of it as plain dicts, lists and numbers, resolved; such are returned as they are.

    Raises:
        ValueError: a value that must be given is missing, or an interpolation does not resolve.
    """
    if isinstance(node, dict | list):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(one_line(error)) from error
