import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kdexp.report.statistics import FEWEST_SEEDS, holm, is_equivalent, paired, t_interval, t_test, wilson, with_p


@pytest.mark.parametrize(("right", "samples"), [(0, 20), (1, 20), (17, 20), (20, 20), (9650, 10_000)])
def test_wilson_is_scipys(right, samples):
    expected = stats.binomtest(right, samples).proportion_ci(method="wilson")
    assert wilson(right / samples, samples) == pytest.approx((expected.low, expected.high))


def test_wilson_of_a_hand_computed_case():
    # z = 1.959964; half = z * sqrt(0.25 / 100 + z^2 / (4 * 100^2)) / (1 + z^2 / 100) = 0.099864 / 1.038415
    assert wilson(0.5, 100) == pytest.approx((0.403832, 0.596168), abs=1e-6)


WORKED = [0.4, 0.1, 0.5, 0.3, -0.1, 0.6]


def test_a_worked_example():
    """By hand: m = 1.8 / 6, s^2 = 0.34 / 5, t = m / (s / sqrt 6) = 2.818; 2.5706 is the 0.975 quantile of 5 df."""
    found = paired(WORKED)
    assert found.mean == pytest.approx(0.3)
    assert found.std == pytest.approx(0.2608, abs=5e-5)
    half = 2.5706 * math.sqrt(0.34 / 5 / 6)
    assert found.interval == pytest.approx((0.3 - half, 0.3 + half), abs=1e-5)
    assert found.interval == pytest.approx((0.026, 0.574), abs=5e-4)
    assert found.p == pytest.approx(0.0372, abs=5e-5)
    assert with_p(found.verdict, found.p) == "better, p = 0.037"


def test_three_seeds_by_hand():
    """t with 2 degrees of freedom has a closed form: p = 1 - t / sqrt(2 + t^2); of 1, 2, 3 t = 2 sqrt 3."""
    p, (low, high) = t_test([0.01, 0.02, 0.03])
    t = 2 * math.sqrt(3)
    assert p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # where 1 - p = 0.95
    assert (low, high) == pytest.approx((0.02 - quantile * 0.01 / math.sqrt(3), 0.02 + quantile * 0.01 / math.sqrt(3)))


def test_it_is_scipys_paired_test():
    rng = np.random.default_rng(0)
    student, control = rng.normal(0.91, 0.01, 7), rng.normal(0.9, 0.01, 7)
    theirs = stats.ttest_rel(student, control)
    found = paired(list(student - control))
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-6)
    assert t_interval(list(student)) == pytest.approx(
        stats.t.interval(0.95, 6, student.mean(), stats.sem(student)), rel=1e-6
    )


def test_the_interval_leaves_out_zero_exactly_where_the_test_is_significant():
    rng = np.random.default_rng(1)
    for n, mean in itertools.product((3, 4, 6, 20), (0, 0.5, 1, 2)):
        for _ in range(20):
            found = paired(list(rng.normal(mean, 1, n)))
            low, high = found.interval
            assert (found.p < 0.05) == (low > 0 or high < 0) == (found.verdict in ("better", "worse"))


def test_differences_that_are_equal_but_for_rounding_are_equal():
    equal = [0.9 - 0.8, 0.4 - 0.3, 0.2 - 0.1]
    assert len(set(equal)) == 3
    assert 0 < np.std(equal) < 1e-15, "which would make the mean significant"
    found = paired(equal)
    assert (found.p, found.interval, found.verdict) == (None, None, "not tested")
    nothing = paired([0.1 + 0.2 - 0.3, 0.0, 0.3 - 0.2 - 0.1])
    assert any(nothing.differences)
    assert (nothing.p, nothing.interval, nothing.verdict) == (1, (0, 0), "not significant")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.01, 0.02], "too few seeds"),
        ([0.01, 0.01], "too few seeds"),
        ([0.0, 0.0], "too few seeds"),
        ([0.02, 0.021, 0.019], "better"),
        ([-0.02, -0.021, -0.019], "worse"),
        ([0.01, 0.02, 0.05], "not significant"),  # all three gain, and their spread is as large as their mean
        ([0.0, 0.0, 0.0], "not significant"),
        ([0.01, 0.01, 0.01], "not tested"),
        ([-0.01, -0.01, -0.01], "not tested"),
    ],
)
def test_a_verdict_needs_seeds_and_evidence(differences, verdict):
    assert paired(differences).verdict == verdict


def test_fewer_seeds_than_three_have_neither_interval_nor_test_and_none_is_nothing():
    assert FEWEST_SEEDS == 3
    one, two = paired([0.02]), paired([0.01, 0.05])
    assert (one.n, one.mean, one.std, one.interval, one.p) == (1, 0.02, None, None, None)
    assert (two.mean, two.std) == (pytest.approx(0.03), pytest.approx(0.04 / math.sqrt(2)))
    assert (two.interval, two.p, t_interval([0.9, 0.8])) == (None, None, None)
    assert paired([]) is None
    assert with_p(two.verdict, two.p) == "too few seeds"


def test_a_mean_of_equal_values_has_no_interval():
    assert t_interval([0.9, 0.9, 0.9]) is None


def test_holm_of_a_worked_example():
    """By hand, and as statsmodels' multipletests has it: 5 x .004, 4 x .012, 3 x .018, 2 x .030, .200."""
    given = [0.004, 0.030, 0.012, 0.200, 0.018]
    assert holm(given) == pytest.approx([0.020, 0.060, 0.048, 0.200, 0.054])


def test_holm_keeps_the_order_stops_at_one_and_counts_what_was_tested_alone():
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04]), "the larger is never below the smaller"
    assert holm([0.9, 0.8, 0.7]) == [1, 1, 1]
    assert holm([None, 0.02, None, 0.5]) == [None, 0.04, None, 0.5]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_equivalence_of_a_worked_example():
    """Its 90 % interval is .3 -+ 2.015 x .2608 / sqrt 6 = .0855 to .5145."""
    assert is_equivalent(WORKED, 0.52)
    assert not is_equivalent(WORKED, 0.51)
    assert is_equivalent([-difference for difference in WORKED], 0.52)
    assert paired(WORKED).verdict == "better", "which does not keep it from being small"


def test_equivalence_is_two_one_sided_tests():
    rng = np.random.default_rng(3)
    for mean, margin in itertools.product((0, 0.5, 1), (0.5, 1, 2)):
        differences = rng.normal(mean, 1, 6)
        above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert is_equivalent(list(differences), margin) == (max(above, below) < 0.05)


@pytest.mark.parametrize(
    ("differences", "found"),
    [([0.001] * 2, None), ([0.001] * 3, None), ([0.0] * 3, True), ([0.1 + 0.2 - 0.3, 0, 0], True)],
)
def test_equivalence_needs_seeds_and_a_spread(differences, found):
    assert is_equivalent(differences, 0.01) is found
