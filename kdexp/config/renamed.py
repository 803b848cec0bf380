"""Keys that older files lack: added when a configuration is read, left out again when an identity is made of it."""

from collections.abc import Callable, Mapping
from typing import Any

from kdexp.config.require import Values

_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "teacher_assistant": {"_target_": "kdexp.schemes.teacher_assistant.TeacherAssistant"},
    "born_again": {"_target_": "kdexp.schemes.born_again.BornAgain"},
    "cross_domain": {"_target_": "kdexp.schemes.cross_domain.CrossDomain"},
    "mutual": {"_target_": "kdexp.schemes.mutual.Mutual", "teacher": "own"},
    "ema": {"_target_": "kdexp.schemes.ema.EMA", "teacher": "own"},
    "pgd_at": {"_target_": "kdexp.schemes.pgd_at.PGDTraining", "teacher": "none"},
    "trades": {"_target_": "kdexp.schemes.trades.TRADES", "teacher": "none"},
    "ard": {"_target_": "kdexp.schemes.ard.ARD"},
    "rslad": {"_target_": "kdexp.schemes.rslad.RSLAD"},
    "iad": {"_target_": "kdexp.schemes.iad.IAD"},
    "adaad": {"_target_": "kdexp.schemes.adaad.AdaAD"},
}
"""The schemes that files know by their name alone: those that are older than `_target_`. Newer ones are not added."""


def upgrade(values: Values) -> dict[str, Any]:
    """A configuration from a file with the keys of today; one of today is returned as it is.

    Args:
        values: a configuration or a part of one, in plain values.
    """
    return _with_schemes(values, lambda scheme: scheme if "_target_" in scheme else {**_added(scheme), **scheme})


def before(values: Values) -> dict[str, Any]:
    """A configuration without the keys that `upgrade` adds: what fingerprints and teachers' keys are made of.

    Args:
        values: a configuration or a part of one, in plain values.
    """
    return _with_schemes(values, _older)


def _older(scheme: Values) -> Values:
    added = _added(scheme)
    is_upgraded = all(scheme.get(key) == value for key, value in added.items())
    return {key: value for key, value in scheme.items() if key not in added} if is_upgraded else scheme


def _added(scheme: Values) -> Mapping[str, str]:
    return _SCHEMES.get(str(scheme.get("name")), {})


def _with_schemes(node: Values, change: Callable[[Values], Values]) -> dict[str, Any]:
    """A copy with each scheme changed: the run's, and those of teachers' recipes."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found[key] = dict(change(value)) if key == "scheme" else _with_schemes(value, change)
        else:
            found[key] = value
    return found
