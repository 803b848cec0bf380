import numpy as np
import pytest

from kdexp.robustness.level_curves import level_at_half, mean_over_levels


def test_accuracy_over_levels_by_hand():
    levels, accuracy = [0.0, 1.0, 3.0], np.array([0.8, 0.6, 0.2])
    assert mean_over_levels(levels, accuracy) == pytest.approx((0.7 * 1 + 0.4 * 2) / 3)
    assert level_at_half(levels, accuracy) == pytest.approx(2.0)  # half of 0.8 is halfway from 0.6 to 0.2
    assert level_at_half(levels, [0.8, 0.6, 0.5]) is None
    assert level_at_half(levels, [0.8, 0.4, 0.0]) == 1.0
    assert level_at_half(levels, [0.0, 0.0, 0.0]) == 0.0
