"""From the configuration's ``robustness`` to its axes, and the check of both; without torch."""

from collections.abc import Mapping

from kdexp.config import trust
from kdexp.robustness import settings as robustness
from kdexp.robustness.axes.base import Axis


def axes(settings: Mapping[str, object]) -> list[Axis]:
    """The axes of a report, in the order of its rows.

    Args:
        settings: the configuration's ``robustness``, in plain values.

    Raises:
        ValueError: an axis cannot be made of its settings.
    """
    found = [_axis(name, own) for name, own in robustness.of_axes(settings).items()]
    return sorted(found, key=lambda axis: axis.place)


def _axis(name: str, settings: object) -> Axis:
    setting = f"robustness.{name}"
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        raise ValueError(f"{setting} must be the settings of an axis, with a _target_, got {settings}")
    return trust.made(settings, "axis", setting, Axis, name)


def check(settings: Mapping[str, object]) -> None:
    """The rules of a robustness report that need no data; those of attacks and corruptions are their constructors'.

    Args:
        settings: the configuration's ``robustness``, in plain values.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    robustness.of_report(settings).check()
    for axis in axes(settings):
        axis.check()
