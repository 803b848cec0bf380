"""What a file of weights says of its network, and the network that is built from it; the file may be anybody's."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from kdexp.config.compose import one_line
from kdexp.config.require import Values, require
from kdexp.config.typed import complete
from kdexp.contracts import Kind, Task
from kdexp.data.normalization import statistic
from kdexp.data.settings import Dataset
from kdexp.data.table import TableColumn
from kdexp.experiment import networks
from kdexp.experiment.finished_run import FinishedRun, Machine
from kdexp.experiment.members import new_task
from kdexp.weights import METADATA, load_weights

_SMALL = 10**6  # values that any machine has room for
_CLASSIFICATION = {"_target_": "kdexp.tasks.classification.Classification"}


@dataclass
class Description:
    """See `kdexp.experiment.networks.description`. What has a default is not said by an older kdexp, or may be null."""

    architecture: str
    settings: dict[str, Any]
    task: str
    input_shape: list[int]
    mean: list[float]
    std: list[float]
    resize: int | None = None
    deployed_by: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    num_outputs: int | None = None
    task_settings: dict[str, Any] | None = None
    inputs: str | None = None
    columns: list[dict[str, Any]] | None = None
    kdexp_version: str = ""

    @property
    def table(self) -> list[TableColumn] | None:
        """The columns of the table that inputs come from."""
        if self.columns is None:
            return None
        return [TableColumn(**{name: one[name] for name in TableColumn._fields}) for one in self.columns]


@dataclass
class _Column:
    name: str
    words: list[str] | None = None
    fill: list[float] | None = None


def read(weights: Path, setting: str) -> Description:
    """What a file of weights says.

    Args:
        weights: .safetensors.
        setting: that named it, for messages.

    Raises:
        ValueError: it says nothing, or what cannot be; one line.
        FileNotFoundError: it is missing.
    """
    rule = f"{setting} must hold weights that say how their network is built, as kdexp writes them"
    if not weights.is_file():
        raise FileNotFoundError(f"{rule}, not found: {weights}")
    try:
        with safe_open(weights, "pt") as file:
            text = (file.metadata() or {}).get(METADATA, "{}")
        found = complete(json.loads(text), Description, "")
        if found["columns"] is not None:
            found["columns"] = [complete(one, _Column, "columns") for one in found["columns"]]
        about = Description(**{name: found[name] for name in Description.__dataclass_fields__})
        _check(about)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{rule}, got {weights}: {one_line(error)}") from error
    return about


def _check(about: Description) -> None:
    shape, inputs = about.input_shape, about.inputs
    require(bool(shape) and min(shape) > 0, "input_shape", "must have sizes above 0", shape)
    require(about.task in get_args(Kind), "task", "must be multiclass, binary or multilabel", about.task)
    require(inputs in (None, "uint8", "float32", "int32"), "inputs", "must be uint8, float32 or int32", inputs)
    mean, std = (statistic(name, getattr(about, name), shape) for name in ("mean", "std"))
    require(bool(mean.isfinite().all()), "mean", "must be finite", about.mean)
    require(bool((std.isfinite() & (std > 0)).all()), "std", "must be finite and > 0", about.std)
    count = 2 if about.task == "binary" else about.num_outputs
    rule = f"must be null or {count} names"
    require(about.classes is None or count in (None, len(about.classes)), "classes", rule, about.classes)
    names = about.classes or []
    require(len({*names}) == len(names), "classes", "must be different names", names)


def built(about: Description, weights: Path, setting: str) -> tuple[nn.Module, Task]:
    """The network with its weights, in eval mode, and what a batch becomes.

    Args:
        about: what the file says.
        weights: the file; of a student with parts of its teacher (SimKD) in its run folder.
        setting: that named it, for messages.

    Raises:
        ValueError: it cannot be built, names what must not be called, or the weights are another network's; one line.
    """
    try:
        return _built(about, weights, setting)
    except OSError:
        raise
    except Exception as error:  # whatever a constructor makes of settings that are not its own
        text = one_line(error)
        if isinstance(error, ValueError) and text.startswith(setting):
            raise
        reason = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
        raise ValueError(f"{setting} must have settings that can be built, got {weights}: {reason}") from error


def _built(about: Description, weights: Path, setting: str) -> tuple[nn.Module, Task]:
    finished = None
    if about.deployed_by or about.task_settings is None:
        with suppress(ValueError):
            finished = FinishedRun(weights.parent, Machine("cpu", None, None), setting=setting)
    of_run: Values = finished.experiment.values if finished else {"task": _CLASSIFICATION}
    settings = of_run["task"] if about.task_settings is None else about.task_settings
    dataset = Dataset(
        name="its data",
        source={},
        kind=about.task,
        num_classes=len(about.classes or ()),
        num_outputs=about.num_outputs or about.settings["num_classes"],
        input_shape=about.input_shape,
    )
    if about.deployed_by:
        if finished is None:
            rule = f"must be a run folder where a student has parts of its teacher ({about.deployed_by[0]})"
            raise ValueError(f"{setting} {rule}, got {weights}")
        network = finished.experiment.new_student()
    else:
        resize = {} if about.resize is None else {"resize": about.resize}
        member = {"_target_": about.architecture, **about.settings, **resize}
        _check_size(weights, lambda: networks.build_network(member, setting, dataset, settings, pretrained=False))
        network = networks.build_network(member, setting, dataset, settings, pretrained=False)
        networks.laid_out(network, "auto", torch.device("cpu"))
    load_weights(network, weights, setting)
    return network.eval(), new_task(settings, dataset)


def _check_size(weights: Path, build: Callable[[], nn.Module]) -> None:
    """See that the network is about as large as its file before there is memory for it: settings may be anybody's."""
    try:
        with torch.device("meta"):
            needed = sum(value.numel() for value in build().state_dict().values())
    except Exception:  # one that looks at values; what else is wrong is said where it is built with them
        return
    with safe_open(weights, "pt") as file:
        held = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    rule = f"must make a network of about the {held:,} values in it"
    require(needed <= 2 * held + _SMALL, "settings", rule, f"{needed:,}")
