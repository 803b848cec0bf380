"""What a file says against a dataclass that says what must be in it: the file may be anybody's."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

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
    if isinstance(kind, UnionType):
        return any(_has_type(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and _have_type(value, get_args(kind)[0])
    if get_origin(kind) is dict:
        return isinstance(value, Mapping) and _have_type(value.values(), get_args(kind)[1])
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _have_type(values: Collection[object], kind: Any) -> bool:
    if get_origin(kind) is None or isinstance(kind, UnionType):  # of no containers: one value of each type is enough
        values = {type(value): value for value in values}.values()
    return all(_has_type(value, kind) for value in values)
