"""How do two swept config keys, alpha and temperature for one, act together?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Figure, Section
from kdexp.report.plotly_figures.heat_map import facets, heat_axes, heat_map
from kdexp.report.run_group import RunGroup


@dataclass(frozen=True)
class _Map:
    """What one map shows: a fraction, or a difference of such."""

    title: str
    value: Callable[[RunGroup], float | None]
    difference: bool = False

    def limits(self, comparison: Comparison) -> tuple[float, float]:
        """Of the colors; of a difference symmetric, so that white is none."""
        known = [found for group in comparison.distilled if (found := self.value(group)) is not None]
        if self.difference:
            largest = max((abs(found) for found in known), default=0.0)
            return -largest, largest
        return min(known, default=0.0), max(known, default=0.0)


def _maps(measure: str) -> list[_Map]:
    metric = glossary.known(measure)
    return [
        _Map(metric.axis(f"{metric.title} on val"), lambda group: group.mean(measure, "val")),
        _Map(metric.axis(f"{metric.title} on test"), lambda group: group.mean(measure)),
        _Map(metric.axis_of_gains("Gain over the control on test"), lambda group: group.mean_gain, difference=True),
    ]


def sections(comparison: Comparison) -> Iterator[Section]:
    """The maps, where two keys were swept as a grid."""
    axes = heat_axes(comparison)
    if axes is not None:
        yield Section(
            "heat-map",
            " and ".join(axes),
            "Means over seeds. The choice is made on val, the left map, alone; its cell is outlined.",
            {name: list(_figures(comparison, groups)) for name, groups in facets(comparison).items()},
        )


def _figures(comparison: Comparison, groups: list[RunGroup]) -> Iterator[Figure]:
    for one in _maps(comparison.measure):
        if any(one.value(group) is not None for group in groups):
            limits = one.limits(comparison)
            plot = heat_map(comparison, groups, one.value, difference=one.difference, limits=limits)
            yield Figure(one.title, plot)
