"""The configuration: its types, its rules, and the one place where it becomes objects."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from kdexp import foreign, trust, typed
from kdexp.atomic import sha256
from kdexp.loader import Loader
from kdexp.monitor import AUTO, DIRECTIONS
from kdexp.require import is_count
from kdexp.require import is_number as _is_number
from kdexp.require import require as _require
from kdexp.robustness import configured

# Hydra 1.4 will warn about any explicit value: this is the one line to change then.
HYDRA_VERSION_BASE = "1.3"


@dataclass
class Schedule:
    """How alpha or the temperature moves over the epochs: from its top-level value to `final`."""

    kind: str = "constant"
    final: float | None = None


@dataclass
class Dataset:
    """See conf/dataset/base.yaml."""

    name: str = MISSING
    source: dict[str, Any] = MISSING
    task: str = "multiclass"
    num_classes: int = MISSING
    num_outputs: int = MISSING
    input_shape: list[int] = MISSING
    mean: list[float] = MISSING
    std: list[float] = MISSING
    classes: list[str] | None = None
    batch_size: int = MISSING
    eval_batch_size: int = MISSING
    drop_last: bool = True
    num_workers: int = 0
    val_fraction: float = MISSING
    split_seed: int = 0
    train_fraction: float = 1.0
    subset_seed: int = 0
    imbalance_ratio: float = 1.0
    label_noise: float = 0.0
    label_noise_kind: str = "symmetric"
    unlabeled_fraction: float = 0.0
    resample: Any = None


@dataclass
class Augment:
    """What is done to training batches, in this order; each transform has a `_target_`. See conf/train.yaml."""

    transforms: list[Any] = field(default_factory=list)
    views: int | None = None
    seed: int = 0


@dataclass
class Trainer:
    """See conf/trainer/base.yaml."""

    accelerator: str = MISSING
    devices: Any = MISSING
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    max_epochs: int = MISSING
    limit_train_batches: Any = None
    limit_val_batches: Any = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    sync_batchnorm: bool = False
    channels_last: Any = "auto"
    compile: Any = False
    monitor: str = "auto"
    log_every_n_steps: int = 50
    gradient_stats_every_n_steps: int = 100
    full_train_metrics: bool = False


@dataclass
class Tracking:
    """See conf/tracking/base.yaml."""

    tool: str = MISSING
    wandb: str = "auto"
    uri: str | None = None
    project: str = "kdexp"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Config:
    """Everything `kdexp.train.run` reads. The groups' own keys (networks, losses, optimizers) are free."""

    dataset: Dataset = MISSING
    teacher: dict[str, Any] = MISSING
    student: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    feature_loss: dict[str, Any] = field(default_factory=dict)
    scheme: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    trainer: Trainer = MISSING
    tracking: Tracking = MISSING
    robustness: dict[str, Any] = field(default_factory=dict)
    augment: Augment = field(default_factory=Augment)
    alpha: float = MISSING
    temperature: float = MISSING
    alpha_schedule: Schedule = field(default_factory=Schedule)
    temperature_schedule: Schedule = field(default_factory=Schedule)
    label_smoothing: float = 0.0
    seed: int = 0
    quick: bool = False
    data_dir: str = MISSING
    store_dir: str = MISSING
    output_dir: str = MISSING
    resume: str | None = None
    rerun: str | None = None
    sweep_name: str | None = None
    sweep_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(name="schema", node=Config, provider="kdexp")
OmegaConf.register_new_resolver(
    "kdexp.num_outputs", lambda task, classes: 1 if task == "binary" else classes, replace=True
)
OmegaConf.register_new_resolver("kdexp.views", lambda mode: _cached_views(mode), replace=True)
OmegaConf.register_new_resolver("kdexp.augment_seed", lambda mode, seed: seed if mode == "none" else 0, replace=True)
OmegaConf.register_new_resolver("kdexp.epochs", lambda epochs, share: round(epochs / max(share, 0.1)), replace=True)
OmegaConf.register_new_resolver("kdexp.tracking_server", foreign.tracking_server, replace=True)
OmegaConf.register_new_resolver("kdexp.inferred", lambda name, _parent_: _inferred(name, _parent_), replace=True)
OmegaConf.register_new_resolver("kdexp.names", lambda group: "+".join(group) or "none", replace=True)


def compose(overrides: Sequence[str] = (), config_name: str = "train", **settings: Any) -> DictConfig:
    """The configuration that ``kdexp-train OVERRIDES`` would run, for use from Python.

    Args:
        overrides: as on the command line: ``["dataset=digits", "alpha=0.3"]``.
        config_name: the primary configuration in conf/.
        settings: plain top-level values that need no quoting, ``output_dir=tmp_path`` above all.

    Returns:
        The configuration, with every interpolation resolved.

    Raises:
        ValueError: an unknown option or key, or a value of the wrong type.
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
            raise ValueError(one_line(error)) from error
    return config


def _inferred(name: str, dataset: Any) -> Any:
    """What the data say of a setting of conf/dataset that is left to them: see `kdexp.data.inferred`."""
    from kdexp.data.inferred import inferred  # here: --help must not wait for torch

    missing = _missing(OmegaConf.to_container(dataset.source), "dataset.source")
    _require(not missing, ", ".join(missing), "must be given", "nothing")
    split = {key: dataset[key] for key in ("val_fraction", "split_seed")}
    return inferred(name, plain(dataset.source), **split)


def release_data(*, samples_only: bool = False) -> None:
    """Let go of data that were loaded to fill in settings, and unless `samples_only` of what is known of them."""
    inferred = sys.modules.get("kdexp.data.inferred")
    if inferred is not None:
        inferred.forget(samples_only=samples_only)


def data_digest(values: Mapping[str, Any]) -> str:
    """Digest of the data that an experiment would load now, see `kdexp.data.content.of_settings`.

    Args:
        values: its configuration, as `plain` gives it.
    """
    from kdexp.data.content import of_settings  # here: --help and most refusals must not wait for torch

    return of_settings(values["dataset"]["source"], Path(values["store_dir"]))


def teacher_files(values: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files that teachers' weights come from, by the teacher's setting; those that are there.

    Args:
        values: a configuration, as `plain` gives it.
    """
    members = teachers(OmegaConf.create(dict(values)))
    files = {setting: Path(member.weights) for setting, member in members.items() if member.weights not in _NO_FILES}
    return {setting: sha256(file) for setting, file in files.items() if file.is_file()}


def dataset_option(name: str, data_dir: str) -> Any:
    """The configuration of another data set by the name of its option; a running program's ``--config-dir`` counts.

    Raises:
        ValueError: there is no such option.
    """
    _require(re.fullmatch(r"[\w/-]+", name), "dataset", "must be the name of an option", name)
    if not GlobalHydra().is_initialized():
        return compose([f"dataset={name}"], data_dir=data_dir, output_dir="").dataset
    loader = GlobalHydra.instance().config_loader()
    overrides = [f"dataset={name}", f"data_dir={json.dumps(data_dir)}"]
    try:
        return OmegaConf.create(plain(loader.load_configuration("train", overrides, RunMode.RUN).dataset))
    except HydraException as error:
        raise ValueError(one_line(error)) from error


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
    return "; ".join(kept).replace(":; ", ": ").replace("':;", "':")


def plain(config: Any) -> Any:
    """The configuration as plain dicts, lists and numbers, resolved.

    Raises:
        ValueError: a value that must be given is missing, or an interpolation does not resolve.
    """
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(one_line(error)) from error


def fingerprint(content: Any) -> str:
    """First 16 hex digits of the SHA-256 of the content's canonical JSON."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Settings that say where and how a run is executed or watched, not what it computes.
RUN_ONLY = (
    "tracking", "robustness", "data_dir", "store_dir", "output_dir", "resume", "rerun", "sweep_name", "sweep_dir",
    "choices",
)  # fmt: skip
# Settings that a student trained alone does not feel; alpha is 1 then.
DISTILLATION_ONLY = (
    "alpha_schedule", "temperature", "temperature_schedule", "teacher", "loss", "feature_loss", "scheme",
)  # fmt: skip


def run_fingerprint(config: Mapping[str, Any]) -> str:
    """Identifies what a run computes; config as `plain` gives it.

    A control's is `control_fingerprint`: at ``alpha == 1`` the same run comes out at every temperature.
    """
    return control_fingerprint(config) if is_control(config) else _fingerprint_without(config, RUN_ONLY)


def control_fingerprint(config: Mapping[str, Any]) -> str:
    """Identifies the control of a run: the same student, data, recipe and seed, without a teacher.

    A run and its control have the same value; the control is the one with ``alpha == 1``.
    """
    return _fingerprint_without(config, (*RUN_ONLY, *DISTILLATION_ONLY, "alpha"))


def _fingerprint_without(config: Mapping[str, Any], ignored: Sequence[str]) -> str:
    content = {key: value for key, value in as_typed(config).items() if key not in ignored}
    if not content.get("quick"):  # fingerprints of runs before there was such a setting have none
        content.pop("quick", None)
    content["dataset"] = _without_folder(content["dataset"])
    source = (content.get("scheme") or {}).get("source") or {}
    if source.get("source", {}).get("download"):  # not left out as above: fingerprints of earlier runs have it as false
        source = {**source, "source": {**source["source"], "download": False}}
        content["scheme"] = {**content["scheme"], "source": source}
    return fingerprint(content)


_NAMED_BY_DATA = "classes_from_data"  # a mark in the configuration of results.json, no setting


def with_class_names(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The configuration for results.json when ``dataset.classes`` is null and the data have names of their own."""
    return {**config, "dataset": {**config["dataset"], "classes": list(names), _NAMED_BY_DATA: True}}


def as_typed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration without what `with_class_names` added: it is no setting, and has no part in a fingerprint."""
    dataset = config.get("dataset", {})
    if _NAMED_BY_DATA not in dataset:
        return config
    settings = {key: value for key, value in dataset.items() if key != _NAMED_BY_DATA}
    return {**config, "dataset": settings | {"classes": None}}


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration from a file, with what every reader takes for granted, whoever wrote it.

    Args:
        config: plain values, of this kdexp or an earlier one.

    Returns:
        The configuration, with the defaults of settings that did not exist when it was written.

    Raises:
        ValueError: a setting without a default is missing, or one has a value of the wrong type.
    """
    return typed.complete(config, Config, "config")


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


def run_key(config: Mapping[str, Any]) -> str:
    """Identifies a run's outcome: what it computes, and the code that computes it."""
    return fingerprint([run_fingerprint(config), code_version()])


def is_one_process(trainer: Mapping[str, Any]) -> bool:
    """Whether a training is sure to be one process on one device."""
    return (trainer["devices"], trainer["num_nodes"], trainer["strategy"]) == (1, 1, "auto")


def fusion_key(config: Mapping[str, Any]) -> str | None:
    """Identifies what jobs must have in common to share their data and teacher in one process (`kdexp.fused`).

    Returns:
        None for a job that cannot: of several processes or devices, of a scheme, or compiled.
    """
    if not is_one_process(config["trainer"]) or config["scheme"] or config["trainer"]["compile"]:
        return None
    content = {key: config[key] for key in ("teacher", "trainer", "data_dir", "store_dir", "quick")}
    for group, of_the_run in (("dataset", "subset_seed"), ("augment", "seed")):
        content[group] = {key: value for key, value in config[group].items() if key != of_the_run}
    if config["feature_loss"]:  # which of the teacher's features are read
        content["student"] = config["student"]
        content["feature_loss"] = {
            name: {key: value for key, value in term.items() if key not in TERM_KEYS}
            for name, term in config["feature_loss"].items()
        }
    return fingerprint(content)


@cache
def code_version() -> str:
    """Version of kdexp and a digest of its source and that of the packages in KDEXP_TRUST."""
    digest = hashlib.sha256(own_source())
    for package in sorted({name.split(".")[0] for name in trust.packages()}):
        digest.update(_digest(package))
    return f"{version('kdexp')}+{digest.hexdigest()[:8]}"


@cache
def own_source() -> bytes:
    """Digest of kdexp's source, as it was when this was called first: see `kdexp.whole`."""
    return _digest("kdexp")


def _digest(package: str) -> bytes:
    digest = hashlib.sha256()
    for path in _sources(package):
        digest.update(f"{package}/{path.name}".encode() + path.read_bytes())
    return digest.digest()


def _sources(package: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.has_location and spec.origin else []
    return sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py"))


def _without_folder(dataset: Mapping[str, Any]) -> dict[str, Any]:
    source = {key: value for key, value in dataset["source"].items() if key not in ("data_dir", "download")}
    return {**dataset, "source": source}


def _cached_views(mode: str) -> int | None:
    """What ``teacher.cache=MODE`` makes of ``augment.views``."""
    if re.fullmatch(_CACHE_MODES, mode) and mode.startswith("views:"):
        return int(mode.removeprefix("views:"))
    return 0 if mode == "static" else None


_CACHE_MODES = r"none|exact|static|views:[1-9]\d*"


ADVERSARIAL_TRAINING = ("pgd_at", "trades")
"""Schemes that train on adversarial examples without a teacher; a teacher's own recipe may have one."""

ROBUST_DISTILLATION = ("ard", "rslad", "iad", "adaad")
"""Schemes that distill on adversarial examples."""


def is_control(config: Any) -> bool:
    """Whether the student is trained alone: alpha is 1 to the end, no representation is compared, nothing attacks."""
    schedule = config["alpha_schedule"]
    always = config["alpha"] == 1 and (schedule["kind"] == "constant" or schedule["final"] == 1)
    return bool(always and not config["feature_loss"] and config["scheme"].get("name") not in ADVERSARIAL_TRAINING)


def is_attacked(config: Any) -> bool:
    """Whether the student is trained on adversarial examples."""
    return not is_control(config) and config["scheme"].get("name") in ADVERSARIAL_TRAINING + ROBUST_DISTILLATION


def has_soft_term(config: Any) -> bool:
    """Whether the student's loss has the term of conf/loss."""
    return not is_control(config) and config["scheme"].get("name") not in ADVERSARIAL_TRAINING


def teachers(config: Any) -> dict[str, Any]:
    """The setting of each teacher and its configuration: none, the one, or the members of an ensemble."""
    if _has_no_place_for_teachers(config):
        return {}
    if not (config.feature_loss or getattr(target(config.loss, "loss"), "needs_teacher", True)):
        return {}
    return _named_teachers(config)


def _has_no_place_for_teachers(config: Any) -> bool:
    """Whether the student is trained alone or by a scheme without a teacher; a loss may need none either."""
    return is_control(config) or config.scheme.get("name") in ("mutual", "ema", *ADVERSARIAL_TRAINING)


_NO_FILES = ("auto", "pretrained", "built")
"""Values of a teacher's ``weights`` that are no paths."""


def _named_teachers(config: Any) -> dict[str, Any]:
    members = config.teacher.get("members")
    if members:
        return {f"teacher.members.{name}": member for name, member in members.items()}
    return {"teacher": config.teacher}


# Keys of a teacher besides its network: how it is trained, asked and kept. Members of an ensemble have the first four.
TEACHER_KEYS = ("weights", "weights_key", "rename", "mean", "std", "recipe", "precision",
                "cache", "cache_precision", "cache_top_k", "cache_max_gb")  # fmt: skip


# Keys of a loss that weigh it, and are not arguments of its constructor.
TERM_KEYS = ("weight", "warmup_epochs", "alone", "after")


def instantiate(config: Any, slot: str, *args: Any) -> Any:
    """Call what a part of a configuration names: see `kdexp.trust.build`."""
    return trust.build(plain(config) if OmegaConf.is_config(config) else config, slot, *args)


def target(config: Any, slot: str) -> Any:
    """What a configuration's `_target_` names, without calling it: see `kdexp.trust.find`."""
    return trust.find(config["_target_"], slot)


def check(config: Any) -> None:
    """The rules that need no data and no network. Called before anything heavy, for a sweep on every job first.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    check_values(config)
    for part in trust.EXPERIMENT:
        trust.check(OmegaConf.to_container(config[part], resolve=True), trust.EXPERIMENT[part], part)
    if config.scheme:
        _check_scheme(config.scheme, config)
    _check_views(config)


def check_values(config: Any) -> None:
    """Those of the rules of `check` that need nothing imported that the configuration names: they take no time.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    # Not of the whole: before a sweep's jobs start, Hydra's own values are not there yet.
    for part in ("dataset", "teacher", "student", "trainer"):
        missing = _missing(OmegaConf.to_container(config[part]), part)
        _require(not missing, ", ".join(missing), "must be given", "nothing")
    _check_distillation(config)
    _check_trainer(config.trainer, config.optimizer)
    _check_rate("optimizer", config.optimizer)
    _check_monitor("trainer.monitor", config.trainer.get("monitor"), config.dataset, attacked=is_attacked(config))
    dataset = config.dataset
    _require(dataset.task in ("multiclass", "binary", "multilabel"), "dataset.task",
             "must be multiclass, binary or multilabel", dataset.task)  # fmt: skip
    _require(dataset.batch_size >= 1, "dataset.batch_size", "must be at least 1", dataset.batch_size)
    _require(dataset.eval_batch_size >= 1, "dataset.eval_batch_size", "must be at least 1", dataset.eval_batch_size)
    _require(dataset.num_workers >= 0, "dataset.num_workers", "must be at least 0", dataset.num_workers)
    fewest = 1 if dataset.task == "multilabel" else 2
    _require(dataset.num_classes >= fewest, "dataset.num_classes", f"must be at least {fewest}", dataset.num_classes)
    _check_classes("dataset", dataset)
    shape = list(dataset.input_shape)
    _require(shape and min(shape) >= 1, "dataset.input_shape", "must be sizes of at least 1, one or more", shape)
    _require(0 <= config.seed < 2**63, "seed", "must be in [0, 2^63)", config.seed)
    _check_networks(config)
    name = config.sweep_name
    _require(
        name is None or re.fullmatch(r"[\w.-]*\w", name), "sweep_name", "must be letters, digits, _, . and -", name
    )
    _require(config.rerun in (None, "all"), "rerun", "must be null or all", config.rerun)
    if config.robustness:
        configured.check(plain(config.robustness))
    _check_tracking(config.tracking)


def _check_networks(config: Any) -> None:
    """Of teachers whatever the loss: whether it needs one is known when it is imported."""
    dataset = config.dataset
    asked = {} if _has_no_place_for_teachers(config) else _named_teachers(config)
    for name, teacher in asked.items():
        _check_teacher(name, teacher)
        attacked = bool(teacher.recipe.get("scheme"))
        _check_monitor(f"{name}.recipe.monitor", teacher.recipe.get("monitor"), dataset, attacked=attacked)
    for name, network in {"student": config.student, **asked}.items():
        _require(
            network.num_classes == dataset.num_outputs,
            f"{name}.num_classes",
            f"must be {dataset.num_outputs}, the outputs that dataset={dataset.name} (task {dataset.task}) needs",
            network.num_classes,
        )


def _check_classes(setting: str, dataset: Any) -> None:
    names = dataset.classes
    wanted, found = dataset.num_classes, len(set(names or ()))
    holds = names is None or found == len(names) == wanted
    rule = f"must have as many different names as {setting}.num_classes={wanted} says"
    _require(holds, f"{setting}.classes", rule, f"{found} in {list(names or ())}")


MOST_OF_TAG = 64
"""Characters of a tag: W&B refuses longer ones."""


def _check_tracking(tracking: Any) -> None:
    _require(tracking.wandb in ("auto", "online", "offline", "disabled"), "tracking.wandb",
             "must be auto, online, offline or disabled", tracking.wandb)  # fmt: skip
    tools = ("wandb", "tensorboard", "mlflow", "csv", "none")
    _require(tracking.tool in tools, "tracking.tool", f"must be one of {', '.join(tools)}", tracking.tool)
    if tracking.tool == "wandb":  # else it says so itself, when the teacher is trained
        for tag in tracking.tags:
            _require(
                1 <= len(tag) <= MOST_OF_TAG, "tracking.tags", f"must be of 1 to {MOST_OF_TAG} characters each", tag
            )
        project = tracking.project
        _require(re.fullmatch(r"[^/\\#?%:]{1,128}", project), "tracking.project",
                 "must be of 1 to 128 characters without / \\ # ? % :", project)  # fmt: skip
    if tracking.tool in ("tensorboard", "mlflow") and find_spec(tracking.tool) is None:
        raise ValueError(f"tracking={tracking.tool} needs what is not installed: pip install 'kdexp[{tracking.tool}]'")


def _missing(node: Any, path: str) -> list[str]:
    if isinstance(node, dict):
        return [name for key, value in node.items() for name in _missing(value, f"{path}.{key}")]
    return [path] if node == "???" else []


def _check_distillation(config: Any) -> None:
    _require(0 <= config.alpha <= 1, "alpha", "must be in [0, 1]", config.alpha)
    _require(0 < config.temperature < float("inf"), "temperature", "must be > 0", config.temperature)
    _require(0 <= config.label_smoothing < 1, "label_smoothing", "must be in [0, 1)", config.label_smoothing)
    for name in ("alpha", "temperature"):
        schedule = config[f"{name}_schedule"]
        kinds = ("constant", "linear", "cosine")
        _require(schedule.kind in kinds, f"{name}_schedule.kind", f"must be one of {', '.join(kinds)}", schedule.kind)
        if schedule.kind == "constant":
            continue
        final = schedule.final
        _require(final is not None, f"{name}_schedule.final", f"is needed by kind={schedule.kind}", final)
        allowed = 0 <= final <= 1 if name == "alpha" else final > 0
        _require(allowed, f"{name}_schedule.final", "must be in [0, 1]" if name == "alpha" else "must be > 0", final)
    _check_term("loss", config.loss)
    for name, term in config.feature_loss.items():
        _check_term(f"feature_loss.{name}", term)
    counts = config.alpha > 0 or config.loss.get("weight", 1.0) > 0 or config.feature_loss
    _require(bool(counts), "loss.weight", "must be > 0 when nothing else counts (alpha=0)", config.loss.get("weight"))


def _check_scheme(scheme: Any, config: Any) -> None:
    names = ("teacher_assistant", "born_again", "mutual", "ema", "cross_domain", *ADVERSARIAL_TRAINING,
             *ROBUST_DISTILLATION)  # fmt: skip
    name = scheme.get("name")
    _require(name in names, "scheme.name", f"must be one of {', '.join(names)}", name)
    if name in ("mutual", "ema"):
        _require(not config.feature_loss, "feature_loss", f"needs a teacher, which scheme={name} does not have",
                 "+".join(config.feature_loss))  # fmt: skip
    if name in ADVERSARIAL_TRAINING + ROBUST_DISTILLATION:
        _check_adversarial("scheme", scheme)
        _require(not config.feature_loss, "feature_loss", f"must be empty with scheme={name}",
                 "+".join(config.feature_loss))  # fmt: skip
    if name in ROBUST_DISTILLATION and not is_control(config):
        _require(bool(teachers(config)), "loss", f"must be one that asks a teacher with scheme={name}",
                 config.loss["_target_"])  # fmt: skip
        _require(config.teacher.get("cache", "none") == "none", "teacher.cache", f"must be none with scheme={name}",
                 config.teacher.get("cache"))  # fmt: skip
    if name == "ema":
        _require(0 <= scheme.decay < 1, "scheme.decay", "must be in [0, 1)", scheme.decay)
    if name == "born_again":
        _require(scheme.generations >= 2, "scheme.generations", "must be at least 2", scheme.generations)
    members = scheme.get("assistants" if name == "teacher_assistant" else "peers") or {}
    for member, network in members.items():
        _require(network.num_classes == config.dataset.num_outputs, f"scheme...{member}.num_classes",
                 f"must be {config.dataset.num_outputs}", network.num_classes)  # fmt: skip
    if name == "cross_domain":
        _check_classes("scheme.source", scheme.source)
        for key in ("task", "num_classes", "input_shape"):
            _require(scheme.source[key] == config.dataset[key], f"scheme.source.{key}",
                     f"must be the target's, {config.dataset[key]}", scheme.source[key])  # fmt: skip


def _check_adversarial(name: str, scheme: Any) -> None:
    """All but the rules of `kdexp.robustness.attacks.Attack`, which takes its settings for numbers."""
    beta, begin, share = (scheme.get(key, 0) for key in ("beta", "begin", "adversarial_weight"))
    _require(_is_number(beta) and beta >= 0, f"{name}.beta", "must be >= 0", beta)
    _require(_is_number(begin) and 0 <= begin < 1, f"{name}.begin", "must be in [0, 1)", begin)
    _require(_is_number(share) and 0 <= share <= 1, f"{name}.adversarial_weight", "must be in [0, 1]", share)
    for key, value in scheme.get("attack", {}).items():
        numeric = key in ("eps", "steps", "step_size")
        _require(not numeric or _is_number(value), f"{name}.attack.{key}", "must be a number", value)


def _check_term(name: str, term: Any) -> None:
    for key in TERM_KEYS:
        value = term.get(key, 0)
        rule = "must be in [0, 1)" if key == "alone" else "must be >= 0"
        holds = _is_number(value) and value >= 0 and not (key == "alone" and value >= 1)
        _require(holds, f"{name}.{key}", rule, value)


def _check_teacher(name: str, teacher: Any) -> None:
    weights, recipe = teacher.weights, teacher.recipe
    _require(isinstance(weights, str), f"{name}.weights", "must be auto, pretrained, built or a file", weights)
    key, rename = teacher.get("weights_key"), teacher.get("rename") or {}
    _require(key is None or isinstance(key, str), f"{name}.weights_key", "must be null or the name of an entry", key)
    _require(OmegaConf.is_dict(rename) or rename == {}, f"{name}.rename", "must be new names by old ones", rename)
    for old, new in rename.items():
        _require(isinstance(new, str) and _is_pattern(old), f"{name}.rename", "must be replacements of regular "
                 "expressions", f"{old!r}: {new!r}")  # fmt: skip
    _require(not (key or rename) or weights not in _NO_FILES, f"{name}.weights",
             "must be a file with weights_key or rename", weights)  # fmt: skip
    for setting in ("max_epochs", "batch_size"):
        _require(is_count(recipe[setting]), f"{name}.recipe.{setting}", "must be at least 1", recipe[setting])
    # Of numbers without a type of their own; a recipe of an older kdexp lacks some.
    shares: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
        ("train_fraction", "must be in (0, 1]", lambda value: 0 < value <= 1),
        ("label_noise", "must be in [0, 1)", lambda value: 0 <= value < 1),
        ("unlabeled_fraction", "must be in [0, 1)", lambda value: 0 <= value < 1),
        ("label_smoothing", "must be in [0, 1)", lambda value: 0 <= value < 1),
        ("imbalance_ratio", "must be >= 1", lambda value: 1 <= value < float("inf")),
        ("gradient_clip_val", "must be null or > 0", lambda value: value > 0),
        ("seed", "must be in [0, 2^63)", lambda value: 0 <= value < 2**63 and isinstance(value, int)),
        ("subset_seed", "must be in [0, 2^63)", lambda value: 0 <= value < 2**63 and isinstance(value, int)),
    )
    for setting, rule, holds in shares:
        value = recipe.get(setting)
        _require(value is None or (_is_number(value) and holds(value)), f"{name}.recipe.{setting}", rule, value)
    precision = recipe.get("precision", "32-true")
    _require(
        precision in _PRECISIONS, f"{name}.recipe.precision", f"must be one of {', '.join(_PRECISIONS)}", precision
    )
    _check_rate(f"{name}.recipe.optimizer", recipe.optimizer)
    _check_choice_or_auto(f"{name}.recipe.channels_last", recipe.channels_last)
    scheme = recipe.get("scheme") or {}
    _require(not scheme or scheme.get("name") in ADVERSARIAL_TRAINING, f"{name}.recipe.scheme",
             f"must be null, {' or '.join(ADVERSARIAL_TRAINING)}", scheme.get("name"))  # fmt: skip
    _check_adversarial(f"{name}.recipe.scheme", scheme)


def _check_rate(name: str, optimizer: Any) -> None:
    rate = optimizer.get("lr")
    _require(rate is None or (_is_number(rate) and rate >= 0), f"{name}.lr", "must be a number >= 0", rate)


def _is_pattern(text: Any) -> bool:
    try:
        re.compile(text)
    except (re.error, TypeError):
        return False
    return True


def _check_views(config: Any) -> None:
    teacher, views = config.teacher, config.augment.views
    _require(views is None or views >= 0, "augment.views", "must be null or at least 0", views)
    _require(teacher.precision in _PRECISIONS, "teacher.precision", f"must be one of {', '.join(_PRECISIONS)}",
             teacher.precision)  # fmt: skip
    _require(re.fullmatch(_CACHE_MODES, str(teacher.cache)) is not None, "teacher.cache",
             "must be none, views:K, exact or static", teacher.cache)  # fmt: skip
    _require(teacher.cache_precision in ("fp16", "fp32"), "teacher.cache_precision", "must be fp16 or fp32",
             teacher.cache_precision)  # fmt: skip
    _require(teacher.cache_max_gb > 0, "teacher.cache_max_gb", "must be > 0", teacher.cache_max_gb)
    top_k = teacher.cache_top_k
    _require(top_k is None or top_k >= 1, "teacher.cache_top_k", "must be null or at least 1", top_k)
    if teacher.cache == "none" or views == 0:
        return
    _require(config.dataset.resample is None, "teacher.cache",
             "must be none or static with dataset.resample, which draws views of its own", teacher.cache)  # fmt: skip
    for transform in config.augment.transforms:
        rule = f"must be none or static with {transform['_target_']}, whose partners depend on the batch"
        mixes = getattr(target(transform, "transform"), "mixes_samples", False)
        _require(not mixes, "teacher.cache", rule, teacher.cache)


_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


MANY_RANKS = "KDEXP_MANY_RANKS"
"""Environment variable: when it is set, a run may have more ranks than the machine has cores."""


def _check_trainer(trainer: Any, optimizer: Any) -> None:
    for name in ("limit_train_batches", "limit_val_batches"):
        limit = trainer[name]
        batches = isinstance(limit, int) and limit >= 1
        share = isinstance(limit, float) and 0 < limit <= 1
        allowed = limit is None or batches or share
        _require(allowed, f"trainer.{name}", "must be null, a number of batches or a share in (0, 1]", limit)
    devices = trainer.devices
    counted = devices == "auto" or (isinstance(devices, int) and devices >= 1) or not isinstance(devices, int | str)
    _require(counted, "trainer.devices", "must be a number of devices, a list of them or auto", devices)
    # A machine has more cores than GPUs. Two ranks are few enough anywhere.
    most = max(os.cpu_count() or 1, 2)
    is_few = not isinstance(devices, int) or devices <= most or bool(os.environ.get(MANY_RANKS))
    rule = f"must be at most {most}, the cores of this machine (unless {MANY_RANKS}=1)"
    _require(is_few or trainer.accelerator == "gpu", "trainer.devices", rule, devices)
    for name, least in (("num_nodes", 1), ("log_every_n_steps", 1), ("gradient_stats_every_n_steps", 0)):
        _require(trainer[name] >= least, f"trainer.{name}", f"must be at least {least}", trainer[name])
    clip = trainer.gradient_clip_val
    _require(clip is None or clip > 0, "trainer.gradient_clip_val", "must be null or > 0", clip)
    _require(trainer.max_epochs >= 1, "trainer.max_epochs", "must be at least 1", trainer.max_epochs)
    _require(trainer.accelerator in ("auto", "cpu", "gpu"), "trainer.accelerator", "must be auto, cpu or gpu",
             trainer.accelerator)  # fmt: skip
    _require(trainer.precision in _PRECISIONS, "trainer.precision", f"must be one of {', '.join(_PRECISIONS)}",
             trainer.precision)  # fmt: skip
    _require(not (trainer.precision == "16-mixed" and trainer.accelerator == "cpu"), "trainer.precision",
             "must be 32-true or bf16-mixed with trainer.accelerator=cpu", trainer.precision)  # fmt: skip
    unscaled = trainer.precision == "16-mixed" and clip is not None
    _require(not (unscaled and optimizer.get("fused")), "optimizer.fused",
             "must be false with trainer.precision=16-mixed and trainer.gradient_clip_val", True)  # fmt: skip
    for setting in ("channels_last", "compile"):
        _check_choice_or_auto(f"trainer.{setting}", trainer[setting])
    _require(trainer.accumulate_grad_batches >= 1, "trainer.accumulate_grad_batches", "must be at least 1",
             trainer.accumulate_grad_batches)  # fmt: skip


def _check_monitor(name: str, monitor: Any, dataset: Any, *, attacked: bool) -> None:
    """A configuration of an older kdexp has none."""
    absent = {"val/robust_acc"} if not attacked else set()
    absent |= {"val/acc_top5"} if dataset.task != "multiclass" or dataset.num_classes <= 5 else set()
    known = [AUTO, *(metric for metric in DIRECTIONS if metric not in absent)]
    _require(monitor is None or monitor in known, name, f"must be one of {', '.join(known)}", monitor)


def _check_choice_or_auto(name: str, value: Any) -> None:
    _require(value in (True, False, "auto"), name, "must be true, false or auto", value)
