"""From the configuration's ``scheme`` to the scheme; without torch, but for what a scheme's own file imports."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdexp.config import trust
from kdexp.config.identity import is_control
from kdexp.schemes.base import Scheme


def scheme_of(settings: Mapping[str, Any] | None, setting: str = "scheme") -> Scheme:
    """The scheme of its settings.

    Args:
        settings: in plain values; empty or None: no scheme is chosen.
        setting: where they stand, for messages.

    Raises:
        ValueError: they name no scheme, or are not its settings.
    """
    if not settings:
        return Scheme()
    if "_target_" not in settings:
        raise ValueError(f"{setting}._target_ must be given, as an option of conf/scheme does, got {dict(settings)}")
    make = trust.find(settings["_target_"], "scheme", f"{setting}.")
    try:
        scheme = make(**{key: value for key, value in settings.items() if key != "_target_"})
    except TypeError as error:  # an argument that it does not have, or lacks
        raise ValueError(f"{setting}: {error}") from error
    if not isinstance(scheme, Scheme):
        raise ValueError(f"{setting}._target_ must be a kdexp.schemes.base.Scheme, got {settings['_target_']}")
    return scheme


def steps(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs that come before the run itself, in their order, and at last that.

    Args:
        values: a configuration, as `kdexp.config.compose.plain` gives it.

    Yields:
        (name, configuration): see `Scheme.prior_runs`. A control is its own only step.
    """
    scheme = Scheme() if is_control(values) else scheme_of(values["scheme"])
    yield from scheme.prior_runs(values)
