"""Names in files of older kdexps of what was measured under a condition: its own file and robustness.json."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_METRICS = {
    "ace": "ece_adaptive",
    "largest_gap": "max_calibration_error",
    "mce_raw": "mce_unnormalized",
    "worst_cell_acc": "worst_condition_acc",
    "teacher_at": "worst_condition_teacher",
    "control_at": "worst_condition_control",
    "student_at": "worst_condition_student",
    "acc_minus_control": "acc_gain",
    "acc_minus_control_low": "acc_gain_low",
    "acc_minus_control_high": "acc_gain_high",
}
_SCALED = "_scaled"


def metric(name: str) -> str:
    """Today's name of what was measured; one of today stays."""
    base = name.removesuffix(_SCALED)
    return _METRICS.get(base, base) + name.removeprefix(base)


def upgrade(measured: Mapping[str, T]) -> dict[str, T]:
    """What was measured, under today's names."""
    return {metric(name): value for name, value in measured.items()}
