"""From the configuration's ``robustness`` to its axes, and the check of both; without torch."""

from collections.abc import Mapping
from typing import Any

from kdexp import trust
from kdexp.require import require
from kdexp.robustness import settings as robustness
from kdexp.robustness.axes.base import Axis


def axes(settings: Mapping[str, Any]) -> list[Axis]:
    """The axes of a report, in the order of its rows.

    Args:
        settings: the configuration's ``robustness``, in plain values.

    Raises:
        ValueError: an axis cannot be made of its settings.
    """
    found = [_axis(name, own) for name, own in robustness.of_axes(settings).items()]
    return sorted(found, key=lambda axis: axis.place)


def _axis(name: str, settings: Any) -> Axis:
    setting = f"robustness.{name}"
    is_axis = isinstance(settings, Mapping) and "_target_" in settings
    require(is_axis, setting, "must be the settings of an axis, with a _target_", settings)
    arguments = {key: value for key, value in settings.items() if key != "_target_"}
    make = trust.find(settings["_target_"], "axis", f"{setting}.")
    try:
        axis = make(name, **arguments)
    except TypeError as error:  # an argument that it does not have, or lacks
        raise ValueError(f"{setting}: {error}") from error
    require(isinstance(axis, Axis), f"{setting}._target_", "must be a kdexp.robustness.axes.base.Axis", axis)
    assert isinstance(axis, Axis)
    return axis


def check(settings: Mapping[str, Any]) -> None:
    """The rules of a robustness report that need no data; those of attacks and corruptions are their constructors'.

    Args:
        settings: the configuration's ``robustness``, in plain values.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    robustness.of_report(settings).check()
    for axis in axes(settings):
        axis.check()
