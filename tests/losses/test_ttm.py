import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdexp.losses.ttm import TTM, ttm


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_ttm_raises_the_teachers_probabilities_to_a_power_and_wttm_weighs_by_their_sum(logits, temperature):
    q, powers = (softmax(x.numpy(), axis=1) for x in logits)
    powers = powers ** (1 / temperature)
    normaliser = powers.sum(1)
    divergence = rel_entr(powers / normaliser[:, None], q).sum(1)
    np.testing.assert_allclose(ttm(*logits, temperature), divergence.mean(), rtol=1e-9)
    expected = (normaliser * divergence).mean()
    np.testing.assert_allclose(ttm(*logits, temperature, weighted=True), expected, rtol=1e-9)
    np.testing.assert_allclose(TTM(temperature, weighted=True)(*logits, None), expected, rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_minimum_is_the_softened_teacher(logits, weighted):
    student = (logits[1] / 5).requires_grad_()
    loss = ttm(student, logits[1], 5.0, weighted=weighted)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert student.grad.abs().max() < 1e-9
    assert ttm(logits[1], logits[1], 5.0, weighted=weighted) > 0.1


def test_the_weight_of_a_sample_is_between_certain_and_uniform():
    student = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    for teacher, weight in ((torch.tensor([[0.0, 1e4, 0.0, 0.0]]), 1.0), (torch.zeros(1, 4), 4 ** (1 - 1 / 2))):
        ratio = ttm(student, teacher, 2.0, weighted=True) / ttm(student, teacher, 2.0)
        assert ratio.item() == pytest.approx(weight)


def test_gradient_passes_a_finite_difference_check(logits):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ttm(z, logits[1][:3], 2.0, weighted=True), student)


def test_a_temperature_that_is_not_positive_is_refused(logits):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        TTM(temperature=0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        ttm(*logits, 0)
