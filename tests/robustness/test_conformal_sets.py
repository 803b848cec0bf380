"""Conformal sets against a worked example, closed forms, and all splits of a few samples."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import beta

from kdexp.contracts import Batch, Split
from kdexp.robustness.axes.conformal import Conformal
from kdexp.robustness.bootstrap import Bootstrap
from kdexp.robustness.conformal_sets import coverage_interval, rank, scores, threshold
from kdexp.robustness.grid import Grid, Measured, Networks, Part
from kdexp.tasks.classification import Classification

CALIBRATED = torch.tensor(
    [[0.8, 0.15, 0.05], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.7, 0.2], [0.3, 0.6, 0.1], [0.45, 0.35, 0.2],
     [0.05, 0.05, 0.9], [0.2, 0.3, 0.5], [0.4, 0.25, 0.35]], dtype=torch.float64)  # fmt: skip
TRUTH = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2, 2])
TESTED = torch.tensor([[0.9, 0.06, 0.04], [0.5, 0.3, 0.2], [0.36, 0.33, 0.31]], dtype=torch.float64)


@pytest.mark.parametrize(("name", "expected", "q", "sets"), [
    ("lac", [0.2, 0.4, 0.6, 0.3, 0.7, 0.55, 0.1, 0.5, 0.65], 0.65, [{0}, {0}, {0}]),
    ("aps", [0.8, 0.6, 0.9, 0.7, 0.9, 0.45, 0.9, 0.5, 0.75], 0.9, [{0}, {0, 1}, {0, 1}]),
    ("aps_randomized", [0.4, 0.3, 0.7, 0.35, 0.75, 0.225, 0.45, 0.25, 0.575], 0.7, [{0}, {0, 1}, {0, 1}]),
])  # fmt: skip
def test_nine_samples_by_hand(name, expected, q, sets):
    found = scores(CALIBRATED, torch.full((9,), 0.5))[name].gather(1, TRUTH[:, None])[:, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert rank(9, 0.2) == 8
    at_most = threshold(found, 0.2)
    assert at_most == pytest.approx(q)
    chosen = scores(TESTED, torch.full((3,), 0.5))[name] <= at_most
    assert [set(row.nonzero()[:, 0].tolist()) for row in chosen] == sets


@pytest.mark.parametrize(
    ("n", "error_rate", "k"), [(8, 0.1, 9), (9, 0.1, 9), (29, 0.1, 27), (18, 0.05, 19), (19, 0.05, 19), (99, 0.29, 71)]
)
def test_the_rank_has_no_rounding_in_it(n, error_rate, k):
    assert rank(n, error_rate) == k
    assert math.isinf(threshold(torch.rand(n), error_rate)) == (n < 1 / error_rate - 1)


@pytest.mark.parametrize(("n", "m", "error_rate"), [(4, 2, 0.2), (5, 3, 0.3), (3, 4, 0.1)])
def test_the_mean_coverage_over_all_splits_is_exactly_k_of_n_plus_one(n, m, error_rate):
    score = torch.rand(n + m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covered = []
    for chosen in combinations(range(n + m), n):
        rest = [place for place in range(n + m) if place not in chosen]
        covered += (score[rest] <= threshold(score[list(chosen)], error_rate)).tolist()
    assert sum(covered) / len(covered) == pytest.approx(min(rank(n, error_rate) / (n + 1), 1), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "low", "high"), [(144, 360, 0.842, 0.953), (500, 1000, 0.866, 0.930), (5000, 10_000, 0.890, 0.910)]
)
def test_the_interval_of_a_coverage(n, m, low, high):
    assert coverage_interval(n, m, 0.1, 0.95) == pytest.approx((low, high), abs=2e-3)
    k = rank(n, 0.1)
    assert coverage_interval(n, 10**6, 0.1, 0.95) == pytest.approx(beta(k, n + 1 - k).interval(0.95), abs=1e-3)
    assert coverage_interval(5, m, 0.1, 0.95) == (1, 1)


def grid_of(logits, target, kind="multiclass"):
    index = torch.arange(len(target))
    batches = [Batch(logits[part], target[part], part) for part in index.split(70)]
    return Grid(
        Part(batches, Split(logits, target, index), index, is_whole=True),
        Classification(logits.shape[1], kind),
        [3],
        seed=1,
    )


@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_the_axis_calibrates_on_a_half_and_reports_the_other(kind):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(400, 1 if kind == "binary" else 4, generator=generator)
    two = torch.cat((torch.zeros_like(logits), logits), 1) if kind == "binary" else logits
    target = torch.distributions.Categorical(logits=two).sample()
    bed, axis = SimpleNamespace(notes=[]), Conformal("conformal", 0.1, 0.5)
    (condition,) = axis.conditions(grid_of(logits, target, kind), bed)
    assert "calibrated on 200 test samples and evaluated on 200" in bed.notes[0]
    measured = condition.measure(Networks({"student": lambda inputs: inputs}))
    one = measured["student"]
    low, high = coverage_interval(200, 200, 0.1, 0.999)
    for score in ("lac", "aps", "aps_randomized"):
        assert low <= one.values[f"coverage_{score}"]
        if score != "aps":  # whose score of the last class is 1: ties, and sets that are too large
            assert one.values[f"coverage_{score}"] <= high
        assert one.samples[f"set_size_{score}"].shape == (200,)
        assert one.values[f"worst_class_coverage_{score}"] <= one.values[f"coverage_{score}"] + 1e-9
        empty = float((one.samples[f"set_size_{score}"] == 0).double().mean())
        assert one.values[f"empty_sets_{score}"] == pytest.approx(empty)
    assert one.values["set_size_lac"] <= one.values["set_size_aps"]
    clean = {"student": Measured({}, {"right": torch.ones(400)})}
    bootstrap = Bootstrap(clean, Classification(4), seed=0, n_resamples=100, confidence_level=0.9)
    said = axis.summarize([(condition, measured)], bootstrap)["conformal"]
    assert said["lac"]["coverage"] == {"student": pytest.approx(one.values["coverage_lac"], abs=1e-6)}
    assert list(said) == ["lac", "aps", "aps_randomized"]
    assert set(said["aps"]) == {"coverage", "set_size", "empty_sets", "worst_class_coverage"}


def test_few_calibration_samples_let_every_class_in():
    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    bed = SimpleNamespace(notes=[])
    (condition,) = Conformal("conformal", 0.1, 0.5).conditions(grid_of(logits, torch.arange(10) % 4), bed)
    few = "too few of the former for robustness.conformal.error_rate=0.1: every set has all classes"
    assert bed.notes == [f"conformal: calibrated on 5 test samples and evaluated on 5: {few}"]
    found = condition.measure(Networks({"student": lambda inputs: inputs}))["student"].values
    assert (found["coverage_aps"], found["set_size_aps"]) == (1, 4)


@pytest.mark.parametrize(("settings", "message"), [
    ((0, 0.5), "robustness.conformal.error_rate must be in \\(0, 1\\), got 0"),
    ((0.1, 1.0), "robustness.conformal.calibration_fraction must be in \\(0, 1\\), got 1.0"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Conformal("conformal", *settings).check()


def test_what_has_no_sets_is_noted_and_too_few_samples_are_refused():
    bed = SimpleNamespace(notes=[])
    assert (
        Conformal("conformal", 0.1, 0.5).conditions(grid_of(torch.randn(6, 2), torch.ones(6, 2), "multilabel"), bed)
        == []
    )
    assert bed.notes == ["conformal left out: a set is of one class a sample, and the kind is multilabel"]
    with pytest.raises(
        ValueError, match=r"^robustness.conformal.calibration_fraction must leave samples on both sides of 6, got 0.01$"
    ):
        Conformal("conformal", 0.1, 0.01).conditions(grid_of(torch.randn(6, 2), torch.arange(6) % 2), bed)
