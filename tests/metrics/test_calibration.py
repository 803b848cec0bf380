import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from kdexp.metrics.calibration import best_temperature, brier, predictions, reliability

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(2000, 7, generator=GENERATOR)
TARGET = torch.distributions.Categorical(logits=LOGITS / 2).sample()  # so the network is too sure of itself
YES = 3 * torch.randn(2000, 1, generator=GENERATOR)
IS_YES = (torch.rand(2000, generator=GENERATOR) < (YES[:, 0] / 2).sigmoid()).long()


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_errors_are_those_of_torchmetrics(bins):
    for norm, name in (("l1", "error"), ("max", "largest")):
        found = reliability(*predictions(LOGITS, TARGET, "multiclass"), bins)
        theirs = multiclass_calibration_error(LOGITS.softmax(1), TARGET, 7, n_bins=bins, norm=norm)
        assert getattr(found, name)() == pytest.approx(float(theirs), abs=1e-6)
        found = reliability(*predictions(YES, IS_YES, "binary"), bins)
        theirs = binary_calibration_error(YES[:, 0].sigmoid(), IS_YES, n_bins=bins, norm=norm)
        assert getattr(found, name)() == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_diagram_is_scikit_learns(strategy):
    confidence, right = predictions(YES, IS_YES, "binary")
    found = reliability(confidence, right, 8, adaptive=strategy == "quantile")
    accuracy, mean = calibration_curve(right.numpy(), confidence.numpy(), n_bins=8, strategy=strategy)
    np.testing.assert_allclose(found.accuracy, accuracy, atol=1e-2 if strategy == "quantile" else 1e-6)
    np.testing.assert_allclose(found.confidence, mean, atol=1e-2 if strategy == "quantile" else 1e-6)


def test_adaptive_bins_are_of_as_many_predictions_each():
    confidence = torch.tensor([0.1, 0.9, 0.3, 0.2, 0.8, 0.7])
    right = torch.tensor([0.0, 1, 1, 0, 0, 1])
    found = reliability(confidence, right, 3, adaptive=True)
    assert found.count.tolist() == [2, 2, 2]
    torch.testing.assert_close(found.confidence, torch.tensor([0.15, 0.5, 0.85], dtype=torch.float64))
    assert found.accuracy.tolist() == [0, 1, 0.5]
    assert found.error() == pytest.approx((0.15 + 0.5 + 0.35) / 3)


def test_a_certain_network_is_in_the_last_bin():
    found = reliability(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), 15)
    assert found.count.tolist() == [1] + [0] * 13 + [2]
    assert found.error() == pytest.approx(2 / 3 * 0.5)


def test_the_brier_score_is_the_squared_distance():
    one_hot = F.one_hot(TARGET, 7)
    assert brier(LOGITS, TARGET, "multiclass").mean() == pytest.approx(
        float(((LOGITS.softmax(1) - one_hot) ** 2).sum(1).mean()), abs=1e-6
    )
    assert brier(YES, IS_YES, "binary").mean() == pytest.approx(
        brier_score_loss(IS_YES.numpy(), YES[:, 0].sigmoid().numpy()), abs=1e-6
    )


@pytest.mark.parametrize(("logits", "target", "kind"), [(LOGITS, TARGET, "multiclass"), (YES, IS_YES, "binary")])
def test_the_temperature_is_scipys_minimum_of_the_likelihood(logits, target, kind):
    def nll(t):
        scaled = logits.double() / t
        if kind == "binary":
            return float(F.binary_cross_entropy_with_logits(scaled[:, 0], target.double()))
        return float(F.cross_entropy(scaled, target))

    found = best_temperature(logits, target, kind)
    assert found == pytest.approx(minimize_scalar(nll, bounds=(0.1, 20), method="bounded").x, rel=1e-3)
    assert found == pytest.approx(2, rel=0.1), "the labels were drawn at T = 2"


def test_a_network_that_is_never_wrong_may_be_as_sure_as_it_likes():
    assert best_temperature(LOGITS, LOGITS.argmax(1), "multiclass") == pytest.approx(0.01, rel=1e-3)
