import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdexp.losses.mlkd import MLKD, mlkd


def test_mlkd_is_the_sum_of_three_levels_over_the_temperatures(logits):
    expected = 0.0
    for temperature in (4.0, 2.0, 3.0, 5.0, 6.0):
        q, p = (softmax(x.numpy() / temperature, axis=1) for x in logits)
        expected += temperature**2 * rel_entr(p, q).sum(1).mean()
        expected += np.linalg.norm(p @ p.T - q @ q.T) ** 2 / 16
        expected += np.linalg.norm(p.T @ p - q.T @ q) ** 2 / 6
    np.testing.assert_allclose(mlkd(*logits, (4.0, 2.0, 3.0, 5.0, 6.0)), expected, rtol=1e-9)
    np.testing.assert_allclose(MLKD()(*logits, None), expected, rtol=1e-9)


def test_a_hand_computed_case():
    # One sample, teacher certain of class 0, student (1/2, 1/2): KL = log 2; P P' = 1, Q Q' = 1/2, and
    # P' P - Q' Q has the entries 3/4, -1/4, -1/4, -1/4, whose squares sum to 3/4.
    found = mlkd(torch.zeros(1, 2), torch.tensor([[100.0, 0.0]]), [1.0])
    assert found.item() == pytest.approx(np.log(2) + 1 / 4 + 3 / 4 / 2, rel=1e-6)


def test_gradient_passes_a_finite_difference_check(logits):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: mlkd(z, logits[1][:3], (1.0, 2.0)), student)


def test_a_temperature_that_is_not_positive_is_refused(logits):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        MLKD(other_temperatures=[2.0, 0])
    with pytest.raises(ValueError, match="temperature must be > 0"):
        mlkd(*logits, [0])
