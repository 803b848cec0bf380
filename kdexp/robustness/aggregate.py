"""From the conditions of all axes to what a report says: rows, and metrics of each network."""

from collections.abc import Mapping, Sequence

from kdexp.robustness.axes.base import Axis
from kdexp.robustness.bootstrap import Bootstrap, Resampled
from kdexp.robustness.grid import Found
from kdexp.robustness.settings import CONTROL, STUDENT


class Summary:
    """What a grid says.

    Args:
        clean: the condition of the clean test set, alone.
        by_axis: the axes in the order of the rows, each with its conditions; one without any says nothing.
        bootstrap: of the clean test set.
    """

    def __init__(self, clean: Found, by_axis: Sequence[tuple[Axis, Found]], bootstrap: Bootstrap) -> None:
        self._by_axis = [(axis, found) for axis, found in by_axis if found]
        self._found = [*clean, *(one for _, found in self._by_axis for one in found)]
        self._bootstrap = bootstrap

    def rows(self) -> list[dict[str, object]]:
        """A row for each condition and network: axis, name, family, level, model, and every value that is defined.

        The student's rows also have the gain in the measure, ``acc_gain``, with the ends of its interval, ``.._low``
        and ``.._high``.
        """
        gains, name = self._gains(), f"{self._bootstrap.measure}_gain"
        rows = []
        for place, (condition, measured) in enumerate(self._found):
            for role in self._bootstrap.roles:
                place_of = {"axis": condition.axis, "name": condition.name, "family": condition.family}
                rows.append(place_of | {"level": condition.level, "model": role} | dict(measured[role].values))
                if role == STUDENT and place in gains:
                    gain = gains[place]
                    rows[-1] |= {name: gain["value"]}
                    rows[-1] |= {f"{name}_{end}": gain[end] for end in ("low", "high")}
        return rows

    def _gains(self) -> dict[int, dict[str, object]]:
        """The place of each condition with a measure -> the gain in it; of all that share their samples at once."""
        if not {STUDENT, CONTROL} <= set(self._bootstrap.roles):
            return {}
        of_student = {place: measured[STUDENT].samples for place, (_, measured) in enumerate(self._found)}
        record = self._bootstrap.record
        size = {place: len(samples[record]) for place, samples in of_student.items() if record in samples}
        gains = {}
        for n in set(size.values()):
            places = [place for place in size if size[place] == n]
            conditions = [self._found[place][1] for place in places]
            own, alone = (self._bootstrap.measured(conditions, role) for role in (STUDENT, CONTROL))
            for column, place in enumerate(places):
                gains[place] = self._bootstrap.difference(own[:, column] - alone[:, column])
        return gains

    def metrics(self) -> dict[str, object]:
        """``Condition.axis`` -> metric -> ``{teacher, control, student, difference: {value, low, high}}``.

        What else there may be: `kdexp.robustness.bootstrap.Bootstrap.entry`. Roles that are not there are left out;
        None stands for what is not defined.
        """
        clean = self._bootstrap.entry(self._bootstrap.clean())
        said: dict[str, object] = {"clean": {self._bootstrap.measure: clean}}
        for axis, found in self._by_axis:
            said |= axis.summarize(found, self._bootstrap)
        return said

    def measure_under(self) -> dict[str, object]:
        """Kind of condition -> the measure under it, with the difference of student and control, as in `metrics`."""
        found: dict[str, Mapping[str, Resampled]] = {"clean": self._bootstrap.clean()}
        for axis, conditions in self._by_axis:
            found |= axis.measure(conditions, self._bootstrap)
        return {condition: self._bootstrap.entry(values) for condition, values in found.items()}

    def extra(self) -> dict[str, object]:
        """More keys of robustness.json; those of axes that are not there are empty."""
        more: dict[str, object] = {"attack_checks": [], "reliability": {}}
        for axis, found in self._by_axis:
            more |= axis.extra(found, self._bootstrap)
        return more
