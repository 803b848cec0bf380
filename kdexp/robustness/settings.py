"""The settings of a robustness report that are no axis's own, and those of its axes by name."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from kdexp.config.require import Values, is_count, is_number, require

TRAINED = TEACHER, CONTROL, STUDENT = "teacher", "control", "student"
"""Of the networks in a report; the control is the baseline, the same student trained without a teacher."""

EXPORTED = "exported"
"""The student as a file, in the reports of ``kdexp-export``."""

ROLES = (*TRAINED, EXPORTED)

_BEFORE_TARGETS = {
    "corruptions": "kdexp.robustness.axes.corruptions.Corruptions",
    "noise_levels": "kdexp.robustness.axes.noise_levels.NoiseLevels",
    "attacks": "kdexp.robustness.axes.attacks.Attacks",
    "shift": "kdexp.robustness.axes.dataset_shift.DatasetShift",
    "ood": "kdexp.robustness.axes.ood.OutOfDistribution",
    "calibration": "kdexp.robustness.axes.calibration.Calibration",
    "representations": "kdexp.robustness.axes.representations.Representations",
}
"""The axes that files know by their name alone: those that are older than `_target_`. Newer axes are not added."""


@dataclass(frozen=True)
class Robustness:
    """See conf/robustness/base.yaml.

    Attributes:
        seed: of noise, random starts and the bootstrap.
        samples: of the test split at most; None: all.
        n_resamples: of the test samples, for the confidence intervals.
        confidence_level: of the intervals.
    """

    seed: int
    samples: int | None
    n_resamples: int
    confidence_level: float

    def check(self) -> None:
        """Check the rules.

        Raises:
            ValueError: one line with the setting, the rule and the value.
        """
        count, level = self.samples, self.confidence_level
        require(count is None or is_count(count), "robustness.samples", "must be null or at least 1", count)
        require(type(self.seed) is int, "robustness.seed", "must be a whole number", self.seed)
        enough = is_count(self.n_resamples) and self.n_resamples >= 100
        require(enough, "robustness.n_resamples", "must be at least 100", self.n_resamples)
        is_share = is_number(level) and 0 < level < 1
        require(is_share, "robustness.confidence_level", "must be in (0, 1)", level)


_OWN = [field.name for field in fields(Robustness)]


def of_report(settings: Mapping[str, object]) -> Robustness:
    """The settings that are no axis's own, of the configuration's ``robustness`` in plain values."""
    values: Values = {name: settings.get(name) for name in _OWN}
    return Robustness(**values)


def of_axes(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of each axis by its name, also of files that are older than its `_target_`."""
    found: dict[str, object] = {}
    for name, own in settings.items():
        if name not in _OWN:
            old = name in _BEFORE_TARGETS
            found[name] = {"_target_": _BEFORE_TARGETS[name], **own} if old and isinstance(own, Mapping) else own
    return found


def recorded(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings as robustness.json has them: an axis that is older than its `_target_` is recorded without it."""
    return {name: _recorded(name, own) for name, own in settings.items()}


def _recorded(name: str, own: object) -> object:
    if not isinstance(own, Mapping) or own.get("_target_") != _BEFORE_TARGETS.get(name, ""):
        return own
    return {key: value for key, value in own.items() if key != "_target_"}
