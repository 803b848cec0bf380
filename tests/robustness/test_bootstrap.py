import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from kdexp.robustness.bootstrap import draw_counts, interval, resampled, resampled_auroc


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
    for row, (w, v) in enumerate(zip(draw_counts(80, 300, 0)[:5], draw_counts(50, 300, 1)[:5], strict=True), start=1):
        weighted = roc_auc_score(label, np.r_[own, other], sample_weight=np.r_[w, v])
        assert found[row] == pytest.approx(weighted)


def test_what_is_not_defined_in_some_samples_has_no_interval():
    assert interval(np.array([1.0, np.nan]), 0.95) is None
