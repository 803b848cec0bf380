"""What a configuration may call: each of its slots has its own list.

Configurations travel, in run folders, in metadata of caches and as yaml files, and each `_target_` in one is a call.
So a slot (a student, a loss, an optimizer, ...) takes one kind of thing: a public constructor that is defined in
kdexp's own files for that slot, or an optimizer or scheduler of a library. A `_target_` anywhere else is refused, and
so is every path with a part that begins with `_`. The environment variable KDEXP_TRUST adds a user's own packages to
every slot: the user says it, not the configuration.
"""

import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from kdexp.config.require import Values
from kdexp.config.typed import wrong_argument

T = TypeVar("T")

Place: TypeAlias = "str | Mapping[str, Place]"
"""What may stand somewhere: the name of a slot, or what may stand under each key; ``*``: under every other key."""


@dataclass(frozen=True)
class Slot:
    """A place of a configuration that names what is called.

    Attributes:
        what: may stand there, in words.
        packages: where it is defined.
        is_kind: whether a class or function of these packages is of the slot's kind.
        partial: whether it is called later, with more arguments (`_partial_`).
        inner: what may stand under its keys.
    """

    what: str
    packages: tuple[str, ...]
    is_kind: Callable[[Callable[..., object]], bool]
    partial: bool = False
    inner: Mapping[str, Place] = field(default_factory=dict)


def _takes(*names: str) -> Callable[[Callable[..., object]], bool]:
    """Whether these are the first parameters."""
    return lambda found: list(inspect.signature(found).parameters)[: len(names)] == list(names)


def _is_a(base: str) -> Callable[[object], bool]:
    """Whether it is a class that is derived from this one; named, so that torch is imported only when needed."""
    return lambda found: inspect.isclass(found) and issubclass(found, pkgutil.resolve_name(base))


def _is_operator(found: Callable[..., object]) -> bool:
    parameters = list(inspect.signature(found).parameters)
    return inspect.isfunction(found) and parameters[1:2] == ["index"] and "seed" in parameters


def _is_schedule(found: Callable[..., object]) -> bool:
    is_class = _is_a("torch.optim.lr_scheduler:LRScheduler")
    return (inspect.isfunction(found) or is_class(found)) and _takes("optimizer")(found)


_RECIPE: Mapping[str, Place] = {
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "augment": {"transforms": {"*": "transform"}},
    "scheme": "scheme",
}
_is_network = _takes("num_classes", "input_shape")
SLOTS: Mapping[str, Slot] = {
    "network": Slot("a network of kdexp.models", ("kdexp.models",), _is_network),
    "teacher": Slot(
        "a network of kdexp.models or kdexp.teacher",
        ("kdexp.models", "kdexp.teacher"),
        _is_network,
        inner={"recipe": _RECIPE, "members": {"*": "teacher"}},
    ),
    "source": Slot(
        "the load function of a data set of kdexp.data",
        ("kdexp.data",),
        lambda found: inspect.isfunction(found) and found.__name__ == "load",
    ),
    "task": Slot("a task of kdexp.tasks", ("kdexp.tasks",), _takes("num_outputs", "kind", "label_smoothing")),
    "transform": Slot(
        "a transform of kdexp.data.augment, joint_augment or rand_augment",
        ("kdexp.data.augment", "kdexp.data.joint_augment", "kdexp.data.rand_augment"),
        inspect.isclass,
    ),
    "loss": Slot("a loss of kdexp.losses", ("kdexp.losses",), _is_a("torch.nn:Module"), inner={"loss": "loss"}),
    "feature_loss": Slot(
        "a feature loss of kdexp.feature_losses",
        ("kdexp.feature_losses",),
        lambda found: _is_a("torch.nn:Module")(found) and _takes("pair")(found),
    ),
    "optimizer": Slot(
        "an optimizer of torch.optim or timm.optim",
        ("torch.optim", "timm.optim"),
        _is_a("torch.optim:Optimizer"),
        partial=True,
    ),
    "scheduler": Slot(
        "a schedule of kdexp.schedules or torch.optim.lr_scheduler",
        ("kdexp.schedules", "torch.optim.lr_scheduler"),
        _is_schedule,
        partial=True,
    ),
    "scheme": Slot(
        "a scheme of kdexp.schemes",
        ("kdexp.schemes",),
        lambda found: (
            _is_a("kdexp.schemes.base:Scheme")(found) and not inspect.isabstract(found) and found.__name__ != "Scheme"
        ),
        inner={"assistants": {"*": "network"}, "peers": {"*": "network"}, "source": {"source": "source"}},
    ),
    "axis": Slot(
        "an axis of kdexp.robustness.axes",
        ("kdexp.robustness.axes",),
        lambda found: (
            _is_a("kdexp.robustness.axes.base:Axis")(found) and found.__module__ != "kdexp.robustness.axes.base"
        ),
        inner={"kinds": {"*": "perturbation"}},
    ),
    "perturbation": Slot(
        "a corruption or a level curve of kdexp.robustness.corruption",
        ("kdexp.robustness.corruption",),
        lambda found: inspect.isclass(found) and _takes("operator")(found),
        inner={"operator": "operator"},
    ),
    "operator": Slot("an operator of kdexp.robustness", ("kdexp.robustness",), _is_operator, partial=True),
}
EXPERIMENT: Mapping[str, Place] = {
    "student": "network",
    "teacher": "teacher",
    "task": "task",
    "loss": "loss",
    "feature_loss": {"*": "feature_loss"},
    "scheme": "scheme",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "augment": {"transforms": {"*": "transform"}},
    "dataset": {"source": "source"},
    "robustness": {"*": "axis"},
}
"""The slots of an experiment's configuration."""


def packages() -> tuple[str, ...]:
    """The packages that the user trusts: comma-separated in KDEXP_TRUST."""
    return tuple(name.strip() for name in os.environ.get("KDEXP_TRUST", "").split(",") if name.strip())


def check(node: object, place: "Place | None" = EXPERIMENT, setting: str = "") -> None:
    """See that every `_target_` stands in a slot, and is one that the slot takes; nothing is called.

    Args:
        node: a configuration or a part of one, in plain values.
        place: what may stand there; None: nothing that is called.
        setting: its name, for messages.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    prefix = f"{setting}." if setting else ""
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, place, prefix)
        inner = _inner(node, place)
        for key, value in node.items():
            named = isinstance(place, Mapping) and "*" in place
            if named and not re.fullmatch(r"[\w.-]*\w", str(key)):  # some of them become names of files
                raise ValueError(f"{setting} must have names of letters, digits, _, . and -, got {key!r}")
            check(value, inner.get(key, inner.get("*")), f"{prefix}{key}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            check(value, _of_items(place), f"{prefix}{number}")


def _inner(node: Values, place: "Place | None") -> Mapping[str, Place]:
    """What may stand under a node's keys. A user's own constructor may be given what its slot takes."""
    if not isinstance(place, str):
        return place or {}
    inner = SLOTS[place].inner
    return {"*": place, **inner} if _is_yours(node.get("_target_")) else inner


def _of_items(place: "Place | None") -> "Place | None":
    """What may stand in a list: under a user's own constructor what may stand alone."""
    return place if isinstance(place, str) else (place or {}).get("*")


def _check_call(node: Values, place: "Place | None", prefix: str) -> None:
    if not isinstance(place, str):
        raise ValueError(f"{prefix}_target_ must not be set: nothing is called there, got {node['_target_']!r}")
    typed = "target" if node.get("target") == node["_target_"] else "_target_"  # student=module
    find(node["_target_"], place, prefix, typed)
    for key in node:
        if str(key).startswith("_") and key != "_target_" and not (key == "_partial_" and SLOTS[place].partial):
            raise ValueError(f"{prefix}{key} must not be set, got {node[key]!r}")


def find(target: object, slot: str, prefix: str = "", key: str = "_target_") -> Callable[..., object]:
    """The class or function that a `_target_` names.

    Args:
        target: a dotted path.
        slot: where it stands, a name of `SLOTS`.
        prefix: of the setting, for messages.
        key: of the setting, likewise.

    Raises:
        ValueError: it is not one that the slot takes, or does not exist.
    """
    module, _, name = str(target).rpartition(".")
    is_public = not any(part.startswith("_") for part in str(target).split("."))
    is_ours = any(f"{module}.".startswith(f"{package}.") for package in SLOTS[slot].packages)
    if is_public and (is_ours or _is_yours(target)):
        try:
            found: Callable[..., object] = pkgutil.resolve_name(
                str(target) if _is_yours(target) else f"{module}:{name}"
            )
        except Exception as error:  # whatever a module does when it is imported
            reason = (str(error) or type(error).__name__).splitlines()[0]
            rule = "must name something that can be imported"
            raise ValueError(f"{prefix}{key} {rule}, got {target!r}: {reason}") from error
        # Where it is defined, and not only where it was found: kdexp.data.x.os.system is none of kdexp's.
        home = str(getattr(found, "__module__", ""))
        if _is_yours(target) and _is_yours(home):
            return found
        is_callable = inspect.isclass(found) or inspect.isfunction(found)
        if is_callable and f"{home}.".startswith(f"{module}.") and SLOTS[slot].is_kind(found):
            return found
    raise ValueError(
        f"{prefix}{key} must be {SLOTS[slot].what}, or be defined in a package that the environment "
        f"variable KDEXP_TRUST names, got {target!r}"
    )


def _is_yours(path: object) -> bool:
    return any(f"{path}.".startswith(f"{package}.") for package in packages())


def made(settings: Values, slot: str, setting: str, kind: type[T], *args: object) -> T:
    """What a class makes of settings that are its constructor's arguments as they are: what they name is not built.

    Args:
        settings: plain values, one of them the `_target_`.
        slot: where they stand, a name of `SLOTS`.
        setting: the name of theirs, for messages.
        kind: what it must be.
        args: come before the settings.

    Raises:
        ValueError: see `find`; or the settings are not the constructor's, or it makes something else.
    """
    make = find(settings["_target_"], slot, f"{setting}.")
    try:
        found = make(*args, **{key: value for key, value in settings.items() if key != "_target_"})
    except TypeError as error:  # an argument that it does not have, or lacks
        raise ValueError(f"{setting}: {error}") from error
    if not isinstance(found, kind):
        rule = f"must be a {kind.__module__}.{kind.__qualname__}"
        raise ValueError(f"{setting}._target_ {rule}, got {settings['_target_']}")
    return found


def build(node: Values, slot: str, *args: object, prefix: str = "") -> Any:
    """Call what a part of a configuration names, with the values beside it.

    What is checked is what is called: no other code reads the values in between.

    Args:
        node: plain values, one of them the `_target_`.
        slot: where it stands, a name of `SLOTS`.
        args: come before its own values.
        prefix: of the settings, for messages.

    Returns:
        What the call returns; with `_partial_` the call itself, for later.

    Raises:
        ValueError: see `check`; or it does not take these arguments.
    """
    check(node, slot)
    return _built(node, slot, args, prefix)


def _built(node: object, place: "Place | None", args: tuple[object, ...] = (), prefix: str = "") -> object:
    """A checked node, with what its slots name in their place."""
    if isinstance(node, list | tuple):
        return [_built(value, _of_items(place)) for value in node]
    if not isinstance(node, Mapping):
        return node
    inner = _inner(node, place)
    values = {
        key: _built(value, inner.get(key, inner.get("*")), prefix=f"{prefix}{key}.") for key, value in node.items()
    }
    if "_target_" not in node or not isinstance(place, str):
        return values
    found = find(values.pop("_target_"), place)
    if values.pop("_partial_", False):
        return partial(found, *args, **values)
    try:
        return found(*args, **values)
    except TypeError as error:  # an argument that it does not have, or lacks, or of another type
        wrong = wrong_argument(found, values)
        raise ValueError(f"{prefix}{wrong}" if wrong else f"{node['_target_']}: {error}") from error
