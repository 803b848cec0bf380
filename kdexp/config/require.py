"""The refusal of a setting in one line: its name, the rule and the value."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

Values: TypeAlias = Mapping[str, Any]
"""A configuration or a part of it, to read: plain values above all."""

Group: TypeAlias = dict[str, Any]
"""A part of the configuration whose keys its option decides: a network's, a loss's, an optimizer's settings."""


def missing_values(node: object, path: str) -> list[str]:
    """Paths of the values below a node that must be given and are not; a `_target_` is that of another one."""
    if isinstance(node, dict):
        typed = {key: value for key, value in node.items() if key != "_target_"}
        return [name for key, value in typed.items() for name in missing_values(value, f"{path}.{key}")]
    return [path] if node == "???" else []


def check_choice_or_auto(name: str, value: object) -> None:
    """Refuse what is neither true, false nor auto."""
    require(value in (True, False, "auto"), name, "must be true, false or auto", value)


def require(rule_holds: object, setting: str, rule: str, value: object) -> None:
    """Refuse a setting whose rule does not hold.

    Raises:
        ValueError: ``SETTING RULE, got VALUE``.
    """
    if not rule_holds:
        raise ValueError(f"{setting} {rule}, got {value}")


def require_numbers(setting: str, value: object) -> None:
    """Refuse a setting that is no list of numbers, or an empty one; value in plain Python types."""
    numbers = isinstance(value, list) and value and all(map(is_number, value))
    require(numbers, setting, "must be a list of numbers", value)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a setting without a type of its own is a whole number of at least 1."""
    return isinstance(value, int) and is_number(value) and value >= 1


def is_number(value: object) -> TypeGuard[float]:
    """Whether a setting without a type of its own is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
