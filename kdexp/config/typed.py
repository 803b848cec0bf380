"""What a file says against a dataclass that says what must be in it: the file may be anybody's.

And what a configuration gives a function against the types of its arguments.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

UNSET = "???"
"""A default that says that there is none, as OmegaConf writes it."""


def complete(content: object, kind: Any, name: str) -> dict[str, Any]:
    """Nested values, with the defaults of what is not among them.

    Args:
        content: plain values, as JSON gives them; what the dataclass does not know is left as it is.
        kind: a dataclass. Its fields are plain types, lists and dicts of them, unions, and dataclasses.
        name: of the content, for messages.

    Raises:
        ValueError: a value without a default is missing, or one has the wrong type.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} must have settings, got {content!r:.50}")
    found: dict[str, object] = {}
    for one, its_type in _fields(kind):
        its_name = f"{name}.{one.name}" if name else one.name
        if one.name not in content and one.default in (MISSING, UNSET) and one.default_factory is MISSING:
            raise ValueError(f"{its_name} must be given, got nothing")
        if is_dataclass(its_type):
            found[one.name] = complete(content.get(one.name, {}), its_type, its_name)
        elif one.name not in content:
            found[one.name] = one.default if one.default_factory is MISSING else one.default_factory()
        elif _has_type(content[one.name], its_type):
            found[one.name] = content[one.name]
        else:
            wanted = its_type if get_args(its_type) else its_type.__name__
            raise ValueError(f"{its_name} must be {wanted}, got {content[one.name]!r:.50}")
    return {**content, **found}


@cache
def _fields(kind: Any) -> list[tuple[Field[object], Any]]:
    types = get_type_hints(kind)
    return [(one, types[one.name]) for one in fields(kind)]


def _has_type(value: object, kind: Any) -> bool:
    if kind is Any:
        return True
    if _is_union(kind):
        return any(_has_type(value, one) for one in get_args(kind))
    if get_origin(kind) in _LISTS:
        return isinstance(value, list) and _have_type(value, get_args(kind)[0])
    if get_origin(kind) in _MAPPINGS:
        return isinstance(value, Mapping) and _have_type(value.values(), get_args(kind)[1])
    if get_origin(kind) is not None:  # what no plain value can be told to be
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _is_union(kind: Any) -> bool:
    return isinstance(kind, UnionType) or get_origin(kind) is Union


def _have_type(values: Collection[object], kind: Any) -> bool:
    if get_origin(kind) is None or isinstance(kind, UnionType):  # of no containers: one value of each type is enough
        values = {type(value): value for value in values}.values()
    return all(_has_type(value, kind) for value in values)


_LISTS, _MAPPINGS = (list, tuple, Sequence), (dict, Mapping)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


def wrong_argument(called: Callable[..., object], values: Mapping[str, object]) -> str | None:
    """Which argument has no value of its type, in one line; None where all have, as far as the types are plain.

    Args:
        called: a function or a class with annotated arguments.
        values: by the argument's name, plain values.
    """
    try:
        types = get_type_hints(called.__init__ if inspect.isclass(called) else called)
    except Exception:  # annotations of a library, which need not be names that exist
        return None
    for name, value in values.items():
        said = _said(types[name]) if name in types else None
        if said is not None and not _has_type(value, types[name]):
            return f"{name} must be {said}, got {value!s:.50}"
    return None


def _said(kind: Any) -> str | None:
    """A type in words, as far as it is plain; None of one that is not at all."""
    if _is_union(kind):
        parts = [part for one in get_args(kind) if (part := _said(one))]
        return " or ".join(sorted(parts, key="null".__ne__)) if set(parts) - {"null"} else None
    if get_origin(kind) in _LISTS:
        inner = get_args(kind)[0]
        plurals = [_PLURALS[one] for one in (get_args(inner) if _is_union(inner) else [inner]) if one in _PLURALS]
        return f"a list of {' or '.join(plurals)}" if plurals else None
    if get_origin(kind) in _MAPPINGS:
        return "settings"
    return _WORDS.get(kind)
