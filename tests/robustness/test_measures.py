import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from kdexp.robustness.measures import (
    _counts,
    area_under,
    halving_dose,
    interval,
    mce_raw,
    mce_relative_to,
    relative_mce,
    resampled,
    resampled_auroc,
)

# Two corruptions at two severities, and one at one.
CORRUPTIONS = ["fog", "fog", "noise", "noise", "zigzag"]
STUDENT = np.array([0.10, 0.20, 0.30, 0.50, 0.4])
CONTROL = np.array([0.20, 0.30, 0.40, 0.60, 0.8])


def test_mean_corruption_errors_by_hand():
    # fog (0.10 + 0.20) / 2, noise (0.30 + 0.50) / 2, zigzag 0.4
    assert mce_raw(STUDENT, CORRUPTIONS) == pytest.approx((0.15 + 0.40 + 0.4) / 3)
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
    assert mce_raw(np.array(alexnet), names) == pytest.approx(np.mean(alexnet))


def test_what_is_not_defined_is_not_a_number():
    never = np.array([0.0, 0.0, 0.4, 0.6, 0.8])
    assert np.isnan(mce_relative_to(STUDENT, never, CORRUPTIONS))
    assert np.isnan(relative_mce(STUDENT, 0.05, CONTROL, 0.30, CORRUPTIONS))  # fog helps the control
    assert interval(np.array([1.0, np.nan]), 0.95) is None


def test_measures_keep_leading_axes():
    many = np.stack([STUDENT, CONTROL])
    np.testing.assert_allclose(mce_raw(many, CORRUPTIONS), [mce_raw(row, CORRUPTIONS) for row in many])
    clean = np.array([0.05, 0.1])
    np.testing.assert_allclose(
        relative_mce(many, clean, many[::-1], clean[::-1], CORRUPTIONS),
        [
            relative_mce(STUDENT, 0.05, CONTROL, 0.1, CORRUPTIONS),
            relative_mce(CONTROL, 0.1, STUDENT, 0.05, CORRUPTIONS),
        ],
    )


def test_a_dose_curve_by_hand():
    doses, accuracy = [0.0, 1.0, 3.0], np.array([0.8, 0.6, 0.2])
    assert area_under(doses, accuracy) == pytest.approx((0.7 * 1 + 0.4 * 2) / 3)
    assert halving_dose(doses, accuracy) == pytest.approx(2.0)  # half of 0.8 is halfway from 0.6 to 0.2
    assert halving_dose(doses, [0.8, 0.6, 0.5]) is None
    assert halving_dose(doses, [0.8, 0.4, 0.0]) == 1.0
    assert halving_dose(doses, [0.0, 0.0, 0.0]) == 0.0


def test_the_bootstrap_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.8, rng.random(400) < 0.7
    accuracies = resampled(np.stack([a, b], 1), 4000, seed=1)
    np.testing.assert_allclose(accuracies[0], [a.mean(), b.mean()])
    found = interval(accuracies[:, 0] - accuracies[:, 1], 0.95)
    theirs = stats.bootstrap(
        (a.astype(float), b.astype(float)), lambda x, y, axis=-1: x.mean(axis) - y.mean(axis),
        paired=True, method="percentile", n_resamples=4000, rng=2,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(found, theirs, atol=0.006)


def test_whatever_is_resampled_shares_its_samples():
    right = np.random.default_rng(7).random((300, 1)) < 0.6
    accuracies = resampled(np.concatenate([right, right, ~right], 1), 250, seed=0)
    assert accuracies.shape == (251, 3)
    assert (accuracies[:, 0] == accuracies[:, 1]).all(), "two equal networks never differ"
    np.testing.assert_allclose(accuracies[:, 0] + accuracies[:, 2], 1, atol=1e-6)
    assert accuracies[1:, 0].std() == pytest.approx((0.6 * 0.4 / 300) ** 0.5, rel=0.15)
    np.testing.assert_array_equal(resampled(right, 250, seed=0)[:, 0], accuracies[:, 0])


def test_the_area_under_the_roc_curve_is_scikit_learns_in_every_sample():
    rng = np.random.default_rng(3)
    own, other = rng.normal(1, 1, 80).round(1), rng.normal(0, 1, 50).round(1)  # with many that are alike
    found = resampled_auroc(own, other, 300, seed=0)
    label = np.r_[np.ones(80), np.zeros(50)]
    assert found[0] == pytest.approx(roc_auc_score(label, np.r_[own, other]))
    for row, (w, v) in enumerate(zip(_counts(80, 300, 0)[:5], _counts(50, 300, 1)[:5], strict=True), start=1):
        weighted = roc_auc_score(label, np.r_[own, other], sample_weight=np.r_[w, v])
        assert found[row] == pytest.approx(weighted)
