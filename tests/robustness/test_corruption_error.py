import numpy as np
import pytest

from kdexp.robustness.corruption_error import mce_relative_to, mce_unnormalized, relative_mce

# Two corruptions at two severities, and one at one.
CORRUPTIONS = ["fog", "fog", "noise", "noise", "zigzag"]
STUDENT = np.array([0.10, 0.20, 0.30, 0.50, 0.4])
CONTROL = np.array([0.20, 0.30, 0.40, 0.60, 0.8])


def test_mean_corruption_errors_by_hand():
    # fog (0.10 + 0.20) / 2, noise (0.30 + 0.50) / 2, zigzag 0.4
    assert mce_unnormalized(STUDENT, CORRUPTIONS) == pytest.approx((0.15 + 0.40 + 0.4) / 3)
    # fog 0.30 / 0.50, noise 0.80 / 1.00, zigzag 0.4 / 0.8
    assert mce_relative_to(STUDENT, CONTROL, CORRUPTIONS) == pytest.approx((0.6 + 0.8 + 0.5) / 3)
    # less clean errors of 0.05 and 0.10: fog 0.20 / 0.30, noise 0.70 / 0.80, zigzag 0.35 / 0.70
    found = relative_mce(STUDENT, 0.05, CONTROL, 0.10, CORRUPTIONS)
    assert found == pytest.approx((0.20 / 0.30 + 0.70 / 0.80 + 0.35 / 0.70) / 3)
    assert mce_relative_to(CONTROL, CONTROL, CORRUPTIONS) == 1
    assert relative_mce(CONTROL, 0.1, CONTROL, 0.1, CORRUPTIONS) == 1


def test_the_published_example_of_alexnet_is_reproduced():
    """AlexNet against itself is 100 %, and its mean error is that which Hendrycks' code prints for it."""
    alexnet = [.886428, .894468, .922640, .819880, .826268, .785948, .798360, .866816, .826572, .819324, .564592,
               .853204, .646056, .717840, .606500]  # fmt: skip
    names = [str(i) for i in range(15)]
    assert mce_relative_to(np.array(alexnet), np.array(alexnet), names) == pytest.approx(1)
    assert mce_unnormalized(np.array(alexnet), names) == pytest.approx(np.mean(alexnet))


def test_what_is_not_defined_is_not_a_number():
    never = np.array([0.0, 0.0, 0.4, 0.6, 0.8])
    assert np.isnan(mce_relative_to(STUDENT, never, CORRUPTIONS))
    assert np.isnan(relative_mce(STUDENT, 0.05, CONTROL, 0.30, CORRUPTIONS))  # fog helps the control


def test_measures_keep_leading_axes():
    many = np.stack([STUDENT, CONTROL])
    np.testing.assert_allclose(
        mce_unnormalized(many, CORRUPTIONS), [mce_unnormalized(row, CORRUPTIONS) for row in many]
    )
    clean = np.array([0.05, 0.1])
    np.testing.assert_allclose(
        relative_mce(many, clean, many[::-1], clean[::-1], CORRUPTIONS),
        [
            relative_mce(STUDENT, 0.05, CONTROL, 0.1, CORRUPTIONS),
            relative_mce(CONTROL, 0.1, STUDENT, 0.05, CORRUPTIONS),
        ],
    )
