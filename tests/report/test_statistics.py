from itertools import product

import numpy as np
import pytest
from scipy import stats

from kdexp.report.statistics import FEWEST_PAIRS, bootstrap, paired, signed_rank, wilson


@pytest.mark.parametrize(("right", "samples"), [(0, 20), (1, 20), (17, 20), (20, 20), (9650, 10_000)])
def test_wilson_is_scipys(right, samples):
    expected = stats.binomtest(right, samples).proportion_ci(method="wilson")
    assert wilson(right / samples, samples) == pytest.approx((expected.low, expected.high))


def test_wilson_of_a_hand_computed_case():
    # z = 1.959964; half = z * sqrt(0.25 / 100 + z^2 / (4 * 100^2)) / (1 + z^2 / 100) = 0.099864 / 1.038415
    assert wilson(0.5, 100) == pytest.approx((0.403832, 0.596168), abs=1e-6)


def test_the_bootstrap_is_that_of_all_resamples():
    values = [0.01, 0.04, 0.02, 0.07]
    means = [np.mean(drawn) for drawn in product(values, repeat=4)]
    assert bootstrap(values) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=1e-3)
    assert bootstrap(values) == bootstrap(values)


def test_the_bootstrap_is_scipys_of_many_values():
    values = np.random.default_rng(1).normal(0.02, 0.01, 30)
    found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    assert bootstrap(values) == pytest.approx((found.low, found.high), abs=2e-4)


def exact_p(differences):
    """By listing every assignment of signs to the ranks."""
    kept = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(kept))
    middle = ranks.sum() / 2
    found = abs(ranks[kept > 0].sum() - middle)
    sums = [ranks[np.array(signs)].sum() for signs in product((False, True), repeat=len(kept))]
    return np.mean([abs(total - middle) >= found - 1e-9 for total in sums])


@pytest.mark.parametrize(
    "differences",
    [
        [0.01, 0.02, 0.03, 0.04, 0.05, 0.06],
        [0.01, 0.02, -0.03, 0.04, 0.05, 0.06, -0.02],
        [0.01, 0.01, 0.02, 0.02, -0.01, 0.03, 0.02],  # of the same size
        [0.01, 0.0, 0.02, -0.02, 0.0, 0.03, 0.05, 0.01],  # and zero
        [-0.01, -0.02, -0.03, -0.04, -0.05, -0.06],
    ],
    ids=str,
)
def test_the_signed_rank_test_is_exact(differences):
    assert signed_rank(differences) == pytest.approx(exact_p(differences))


def test_differences_that_are_equal_but_for_rounding_are_equal():
    noisy = [0.9 - 0.8, 0.4 - 0.3, 0.2 - 0.1, 0.7 - 0.6, 0.2 - 0.3, 0.8 - 0.6, 0.5 - 0.3]
    clean = [0.1, 0.1, 0.1, 0.1, -0.1, 0.2, 0.2]
    assert noisy == pytest.approx(clean)
    assert exact_p(noisy) != pytest.approx(exact_p(clean))
    assert signed_rank(noisy) == pytest.approx(exact_p(clean))


def test_no_difference_at_all_is_no_evidence():
    assert signed_rank([0.0] * 8) == 1


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.01] * (FEWEST_PAIRS - 1), "not enough seeds to tell"),
        ([0.01, 0.02, 0.03, 0.04, 0.05, 0.0], "not enough seeds to tell"),  # the zero says nothing to the test
        ([0.0] * FEWEST_PAIRS, "no difference shown"),
        ([0.01, 0.02, 0.03, 0.04, 0.05, 0.06], "better"),
        ([-0.01, -0.02, -0.03, -0.04, -0.05, -0.06], "worse"),
        ([0.01, -0.02, 0.03, -0.04, 0.05, -0.06], "no difference shown"),
    ],
)
def test_a_verdict_needs_seeds_and_evidence(differences, verdict):
    assert paired(differences).verdict == verdict


def test_fewest_pairs_is_where_the_test_can_reach_five_percent():
    assert exact_p(range(1, FEWEST_PAIRS + 1)) < 0.05 <= exact_p(range(1, FEWEST_PAIRS))


def test_one_pair_has_neither_interval_nor_spread_and_none_is_nothing():
    one = paired([0.02])
    assert (one.n, one.mean, one.std, one.interval, one.p) == (1, 0.02, None, None, None)
    assert paired([]) is None
    three = paired([0.01, 0.02, 0.06])
    assert (three.mean, three.std) == (pytest.approx(0.03), pytest.approx(0.0264575))
