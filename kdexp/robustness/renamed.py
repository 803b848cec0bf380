"""Names in files of older kdexps of what was measured under a condition: its own file and robustness.json."""

from collections.abc import Mapping
from typing import TypeVar

from kdexp.config import renamed
from kdexp.config.require import Values

T = TypeVar("T")

_METRICS = {
    "ace": "ece_adaptive",
    "largest_gap": "max_calibration_error",
    "mce_raw": "mce_unnormalized",
    "probe": "linear_probe_acc",
    "knn": "knn_acc",
    "worst_cell_acc": "worst_condition_acc",
    "teacher_at": "worst_condition_teacher",
    "control_at": "worst_condition_control",
    "student_at": "worst_condition_student",
    "area": "mean_acc",
    "halving_dose": "level_at_half_acc",
    "dose": "level",
    "acc_minus_control": "acc_gain",
    "acc_minus_control_low": "acc_gain_low",
    "acc_minus_control_high": "acc_gain_high",
}
_SCALED = "_scaled"


def axis(name: str) -> str:
    """Today's name of an axis; one of today, or of one's own, stays."""
    return renamed.new_option("robustness", name) or name


def perturbation(name: str) -> str:
    """Today's name of a perturbation; one of today, or of one's own, stays."""
    return renamed.new_option("corruption", name) or name


def before(axis: str, name: str, settings: Values) -> tuple[str, str, dict[str, object]]:
    """Axis, perturbation and settings of a condition under the names that they had at first."""
    older = renamed.before({"robustness": axis, "corruption": name})
    own = renamed.before({"robustness": {axis: settings}})["robustness"]
    return older["robustness"], older["corruption"], own[older["robustness"]]


def metric(name: str) -> str:
    """Today's name of what was measured; one of today stays."""
    base = name.removesuffix(_SCALED)
    return _METRICS.get(base, base) + name.removeprefix(base)


def upgrade(measured: Mapping[str, T]) -> dict[str, T]:
    """What was measured, under today's names."""
    return {metric(name): value for name, value in measured.items()}
