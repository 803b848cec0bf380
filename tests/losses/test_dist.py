import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import pearsonr

from kdexp.losses.dist import DIST, dist


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_is_one_minus_pearsons_r_of_rows_and_of_columns(logits, temperature):
    q, p = (softmax(x.numpy() / temperature, axis=1) for x in logits)
    inter = 1 - np.mean([pearsonr(a, b).statistic for a, b in zip(q, p, strict=True)])
    intra = 1 - np.mean([pearsonr(a, b).statistic for a, b in zip(q.T, p.T, strict=True)])
    found = dist(*logits, temperature, inter_weight=2.0, intra_weight=0.5)
    np.testing.assert_allclose(found, temperature**2 * (2 * inter + 0.5 * intra), rtol=1e-9)
    np.testing.assert_allclose(DIST(temperature)(*logits, None), temperature**2 * (inter + intra))


def test_columns_of_rare_classes_keep_their_correlation():
    # Probabilities near 1e-7: the product of the centred columns' norms is far below the 1e-8 of the public code.
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64).unbind()
    student[:, 0], teacher[:, 0] = student[:, 0] + 16, teacher[:, 0] + 16
    q, p = (softmax(x.numpy(), axis=1) for x in (student, teacher))
    expected = 1 - np.mean([pearsonr(a, b).statistic for a, b in zip(q.T, p.T, strict=True)])
    np.testing.assert_allclose(dist(student, teacher, 1.0, inter_weight=0.0), expected, rtol=1e-6)


def test_an_opposite_order_is_the_worst_and_costs_two_for_each_part():
    teacher = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]], dtype=torch.float64) * 1e-4
    # For tiny logits the probabilities are linear in them.
    assert dist(-teacher, teacher, 1.0, intra_weight=0.0).item() == pytest.approx(2, abs=1e-3)
    columns = dist(-teacher, teacher, 1.0, inter_weight=0.0).item()
    assert columns == pytest.approx((2 + 1 + 2) / 3, abs=0.4)  # the middle column is all but constant


def test_gradient_passes_a_finite_difference_check(logits):
    student = logits[0][:4].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: dist(z, logits[1][:4], 2.0), student)


def test_a_batch_of_one_has_a_constant_intra_part(logits):
    student = logits[0][:1].clone().requires_grad_()
    loss = dist(student, logits[1][:1], 4.0, inter_weight=0.0)
    loss.backward()
    assert loss.item() == 16
    assert not student.grad.any()


def test_two_classes_warn_and_have_the_intra_part_alone(logits):
    student, teacher = logits[0][:, :2].clone().requires_grad_(), logits[1][:, :2]
    with pytest.warns(UserWarning, match="loss=dist: the inter-class term has no gradient with 2 classes"):
        dist(student, teacher, 1.0, intra_weight=0.0).backward()
    assert student.grad.abs().max() < 1e-12
    dist(student, teacher, 1.0).backward()  # says it no more
    assert student.grad.abs().max() > 1e-3


def test_a_temperature_that_is_not_positive_is_refused(logits):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        DIST(temperature=0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        dist(*logits, 0)
