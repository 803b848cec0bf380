"""From the cells of a grid to what a report says: measures of each network, and differences with intervals.

Differences are between the distilled student and the control. Their intervals are those of a paired bootstrap over test
samples: every network, in every cell, is measured on the same resampled test set, so that a difference of nothing has
an interval of nothing.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from kdexp.metrics.calibration import bin_of, reliability
from kdexp.robustness import is_of_corruptions, measures
from kdexp.robustness.cells import Cell, Measured

ROLES = TEACHER, CONTROL, STUDENT = "teacher", "control", "student"

Found = Sequence[tuple[Cell, Mapping[str, Measured]]]
"""Cells, and what was measured of each role in them."""

Resampled = np.ndarray
"""(1 + resamples, ...): of the test set, then of its bootstrap samples."""

# Within this many points of accuracy an attack that ought to be the stronger one may do worse by chance.
_LUCK = 0.01


class Summary:
    """What a grid says.

    Args:
        found: the cells; that of the clean test set among them.
        seed: of the bootstrap.
        resamples: of the test samples.
        confidence: of the intervals, in (0, 1).
        bins: of the calibration errors.
    """

    def __init__(self, found: Found, *, seed: int, resamples: int, confidence: float, bins: int) -> None:
        self._found, self._bins, self._confidence = found, bins, confidence
        self._resample: dict[str, int] = {"resamples": resamples, "seed": seed}
        present = {role for _, measured in found for role in measured}
        self.roles = [role for role in ROLES if role in present]
        (self._clean,) = (measured for cell, measured in found if cell.axis == "clean")

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cell and network: axis, name, family, dose, model, and every value that is defined.

        The student's rows also have ``acc_minus_control`` with the ends of its interval, ``.._low`` and ``.._high``.
        """
        gains = self._gains()
        rows = []
        for place, (cell, measured) in enumerate(self._found):
            for role in self.roles:
                row = {"axis": cell.axis, "name": cell.name, "family": cell.family, "dose": cell.dose, "model": role}
                rows.append(row | dict(measured[role].values))
            if place in gains:
                gain = gains[place]
                rows[-1] |= {"acc_minus_control": gain["value"]}
                rows[-1] |= {f"acc_minus_control_{end}": gain[end] for end in ("low", "high")}
        return rows

    def _gains(self) -> dict[int, dict[str, Any]]:
        """The place of each cell with accuracies -> the difference in it; of all that share their samples at once."""
        if not {STUDENT, CONTROL} <= set(self.roles):
            return {}
        rated = [place for place, (_, measured) in enumerate(self._found) if "right" in measured[STUDENT].samples]
        size = {place: len(self._found[place][1][STUDENT].samples["right"]) for place in rated}
        gains = {}
        for n in set(size.values()):
            places = [place for place in rated if size[place] == n]
            own, alone = (
                self._accuracy([self._found[place][1] for place in places], role) for role in (STUDENT, CONTROL)
            )
            for column, place in enumerate(places):
                gains[place] = self._difference(own[:, column] - alone[:, column])
        return gains

    def measures(self) -> dict[str, Any]:
        """Axis -> measure -> ``{teacher, control, student, difference: {value, low, high}}``.

        Roles that are not there are left out; None stands for what is not defined.
        """
        said: dict[str, Any] = {"clean": {"acc": self._entry(self._accuracy_of_one(self._clean))}}
        for axis in dict.fromkeys(cell.axis for cell, _ in self._found):
            cells = [(cell, measured) for cell, measured in self._found if cell.axis == axis]
            if is_of_corruptions(axis):
                said[axis] = self._corruptions(cells)
            elif axis in ("noise_dose", "attacks"):
                said[axis] = self._curves(cells)
            elif axis == "shift":
                said[axis] = {cell.name: self._shift(measured) for cell, measured in cells}
            elif axis == "ood":
                said[axis] = {cell.name: self._detection(measured) for cell, measured in cells}
            elif axis == "features":
                said[axis] = {cell.name: self._features(measured) for cell, measured in cells}
            elif axis == "calibration":
                said[axis] = self._calibration(cells[0][1])
        return said

    def accuracy_under(self) -> dict[str, Any]:
        """Condition -> accuracy under it, with the difference of student and control, as in `measures`.

        ``clean``; ``noise_dose`` and ``attacks``: the mean over their kinds of the area under accuracy over level;
        each set of corruptions: the mean over its kinds and severities; ``shift NAME``.
        """
        found = {"clean": self._accuracy_of_one(self._clean)}
        for axis in dict.fromkeys(cell.axis for cell, _ in self._found):
            cells = [(cell, measured) for cell, measured in self._found if cell.axis == axis]
            if is_of_corruptions(axis):
                names = [cell.name for cell, _ in cells]
                right = {role: self._accuracy([measured for _, measured in cells], role) for role in self.roles}
                found[axis] = {role: 1 - measures.mce_raw(1 - own, names) for role, own in right.items()}
            elif axis in ("noise_dose", "attacks"):
                areas = [_areas(*curve) for curve in self._accuracy_curves(cells).values()]
                found[axis] = {role: np.mean([kind[role] for kind in areas], axis=0) for role in self.roles}
            elif axis == "shift":
                found |= {f"shift {cell.name}": self._accuracy_of_one(measured) for cell, measured in cells}
        return {condition: self._entry(values) for condition, values in found.items()}

    def attack_checks(self) -> list[dict[str, Any]]:
        """What must hold of attacks that work: each has ``model``, ``check``, ``holds`` and ``detail``.

        Where one fails, gradients are masked, and robust accuracy is not what it seems (Athalye, Carlini and Wagner
        2018, arXiv 1802.00420, section 3.1).
        """
        accuracy = {
            (cell.axis, cell.name, cell.dose): {role: one.values["acc"] for role, one in measured.items()}
            for cell, measured in self._found
            if cell.axis.startswith("attack")
        }
        Key = tuple[str, str, float]
        pairs: list[tuple[str, Key | None, Key]] = []
        for axis, name, eps in accuracy:
            if axis == "attack_more_steps":
                pairs.append(
                    (f"{name}: more steps do not help the defender", ("attacks", name, eps), (axis, name, eps))
                )
            elif axis == "attack_unbounded":
                pairs.append((f"{name}: when every input is allowed nothing is right", None, (axis, name, eps)))
        for name in dict.fromkeys(name for axis, name, _ in accuracy if axis == "attacks"):
            curve = [key for key in accuracy if key[:2] == ("attacks", name)]
            pairs += [(f"{name}: a larger eps does not help the defender", *two) for two in pairwise(curve)]
        checks = []
        for role in self.roles:
            for what, weaker, stronger in pairs:
                allowed = accuracy[weaker][role] if weaker is not None else 0.0
                left = accuracy[stronger][role]
                detail = f"accuracy {100 * allowed:.1f} -> {100 * left:.1f} %" if weaker else f"{100 * left:.1f} % left"
                checks.append({"model": role, "check": what, "holds": left <= allowed + _LUCK, "detail": detail})
        return checks

    def reliability(self) -> dict[str, Any]:
        """Role -> plain and scaled -> count, confidence and accuracy of each bin; None for those of an empty bin."""
        measured = next((measured for cell, measured in self._found if cell.axis == "calibration"), {})
        return {
            role: {
                name: self._diagram(one.samples[f"confidence{suffix}"], one.samples["hit"])
                for name, suffix in (("plain", ""), ("scaled", "_scaled"))
            }
            for role, one in measured.items()
        }

    def _diagram(self, confidence: Tensor, hit: Tensor) -> dict[str, list[float | None]]:
        bins = reliability(confidence, hit, self._bins)
        return {key: [_number(v) for v in getattr(bins, key).tolist()] for key in ("count", "confidence", "accuracy")}

    # Of the axes

    def _corruptions(self, cells: Found) -> dict[str, Any]:
        names = [cell.name for cell, _ in cells]
        right = {role: self._accuracy([measured for _, measured in cells], role) for role in self.roles}
        wrong = {role: 1 - own for role, own in right.items()}
        clean = {role: 1 - own for role, own in self._accuracy_of_one(self._clean).items()}
        said = {"mce_raw": self._entry({role: measures.mce_raw(own, names) for role, own in wrong.items()})}
        if CONTROL in self.roles:
            alone = wrong[CONTROL]
            said["mce_vs_control"] = self._entry(
                {role: measures.mce_relative_to(own, alone, names) for role, own in wrong.items()}
            )
            said["relative_mce"] = self._entry(
                {
                    role: measures.relative_mce(own, clean[role], alone, clean[CONTROL], names)
                    for role, own in wrong.items()
                }
            )
        for family in dict.fromkeys(cell.family for cell, _ in cells):
            part = [place for place, (cell, _) in enumerate(cells) if cell.family == family]
            of_part = [names[place] for place in part]
            said[f"error_{family}"] = self._entry(
                {role: measures.mce_raw(own[:, part], of_part) for role, own in wrong.items()}
            )
        said["worst_cell_acc"] = self._entry({role: own.min(1) for role, own in right.items()})
        for role, own in right.items():
            cell, _ = cells[int(own[0].argmin())]
            said["worst_cell_acc"][f"{role}_at"] = f"{cell.name} {cell.dose:g}"
        return said

    def _curves(self, cells: Found) -> dict[str, Any]:
        return {
            name: {
                "area": self._entry(_areas(doses, right)),
                "halving_dose": {role: measures.halving_dose(doses, own[0]) for role, own in right.items()},
            }
            for name, (doses, right) in self._accuracy_curves(cells).items()
        }

    def _accuracy_curves(self, cells: Found) -> dict[str, tuple[list[float], dict[str, Resampled]]]:
        """Kind -> its doses, 0 first, and accuracy at each of them by role, (1 + resamples, doses)."""
        found = {}
        for name in dict.fromkeys(cell.name for cell, _ in cells):
            curve = [(cell, measured) for cell, measured in cells if cell.name == name]
            doses = [0.0, *(cell.dose for cell, _ in curve)]
            # Attacks may have been tried on some samples only.
            clean = _at(self._clean, curve[0][0].positions)
            points = [clean, *(measured for _, measured in curve)]
            found[name] = doses, {role: self._accuracy(points, role) for role in self.roles}
        return found

    def _shift(self, measured: Mapping[str, Measured]) -> dict[str, Any]:
        right, clean = self._accuracy_of_one(measured), self._accuracy_of_one(self._clean)
        return {
            "acc": self._entry(right),
            "acc_lost": {role: _number(clean[role][0] - own[0]) for role, own in right.items()},
        }

    def _detection(self, measured: Mapping[str, Measured]) -> dict[str, Any]:
        said = {}
        for name in next(iter(measured.values())).values:
            score, _, measure = name.rpartition("_")
            if measure == "auroc":
                areas = {}
                for role in self.roles:
                    own, other = (measured[role].samples[f"{score}_{side}"].numpy() for side in ("own", "other"))
                    areas[role] = measures.resampled_auroc(own, other, **self._resample)
                said[name] = self._entry(areas)
            else:
                said[name] = {role: measured[role].values[name] for role in self.roles}
        return said

    def _features(self, measured: Mapping[str, Measured]) -> dict[str, Any]:
        having = {role: one for role, one in measured.items() if one.values}
        said = {
            name: self._entry({role: self._mean(one, name) for role, one in having.items()})
            for name in ("probe", "knn")
        }
        alike = {role: one.values["cka_to_teacher"] for role, one in having.items() if "cka_to_teacher" in one.values}
        return said | ({"cka_to_teacher": {role: _number(value) for role, value in alike.items()}} if alike else {})

    def _calibration(self, measured: Mapping[str, Measured]) -> dict[str, Any]:
        said: dict[str, Any] = {}
        for name in next(iter(measured.values())).values:
            base = name.removesuffix("_scaled")
            suffix = name.removeprefix(base)
            if base in ("nll", "brier"):
                said[name] = self._entry({role: self._mean(measured[role], name) for role in self.roles})
            elif base == "ece":
                said[name] = self._entry({role: self._ece(measured[role], suffix) for role in self.roles})
            else:
                said[name] = {role: measured[role].values[name] for role in self.roles}
        return said

    # Of the bootstrap

    def _mean(self, one: Measured, name: str) -> Resampled:
        values = one.samples[name].double().numpy()
        return measures.resampled(values.reshape(len(values), 1), **self._resample)[:, 0]

    def _ece(self, one: Measured, suffix: str) -> Resampled:
        """Of each bin the sum of (right - confidence) is resampled; the error is the sum of their sizes."""
        confidence, hit = (one.samples[name].double() for name in (f"confidence{suffix}", "hit"))
        confidence, hit = confidence.view(len(confidence), -1), hit.view(len(hit), -1)
        place = bin_of(confidence, self._bins)
        gaps = [((hit - confidence) * (place == number)).mean(1).numpy() for number in range(self._bins)]
        sums: Resampled = np.abs(measures.resampled(np.stack(gaps, 1), **self._resample)).sum(1)
        return sums

    def _accuracy(self, cells: Sequence[Mapping[str, Measured]], role: str) -> Resampled:
        """(1 + resamples, cells)."""
        right = np.stack([one[role].samples["right"].numpy() for one in cells], 1)
        return measures.resampled(right, **self._resample)

    def _accuracy_of_one(self, measured: Mapping[str, Measured]) -> dict[str, Resampled]:
        return {role: self._accuracy([measured], role)[:, 0] for role in self.roles}

    def _entry(self, values: Mapping[str, Resampled]) -> dict[str, Any]:
        entry: dict[str, Any] = {role: _number(value[0]) for role, value in values.items()}
        if STUDENT in values and CONTROL in values:
            entry["difference"] = self._difference(values[STUDENT] - values[CONTROL])
        return entry

    def _difference(self, values: Resampled) -> dict[str, Any]:
        low, high = measures.interval(values, self._confidence) or (None, None)
        return {"value": _number(values[0]), "low": low, "high": high}


def _areas(doses: Sequence[float], right: Mapping[str, Resampled]) -> dict[str, Resampled]:
    return {role: measures.area_under(doses, own) for role, own in right.items()}


def _at(measured: Mapping[str, Measured], positions: Tensor | None) -> Mapping[str, Measured]:
    """What was measured, of some samples; None: of all."""
    if positions is None:
        return measured
    return {role: Measured(one.values, {"right": one.samples["right"][positions]}) for role, one in measured.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
