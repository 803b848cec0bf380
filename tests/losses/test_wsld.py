import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from kdexp.losses.wsld import WSLD, wsld


def expected_terms(student, teacher, target, temperature):
    weights, divergences = [], []
    for z_s, z_t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        weights.append(1 - np.exp(-log_softmax(z_s)[y] / log_softmax(z_t)[y]))
        divergences.append(rel_entr(softmax(z_t / temperature), softmax(z_s / temperature)).sum())
    return np.array(weights), np.array(divergences)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_wsld_weighs_each_samples_kl_by_the_ratio_of_cross_entropies(logits, target, temperature):
    weights, divergences = expected_terms(*logits, target, temperature)
    expected = temperature**2 * (weights * divergences).mean()
    np.testing.assert_allclose(wsld(*logits, target, temperature), expected, rtol=1e-9)
    np.testing.assert_allclose(WSLD(temperature)(*logits, target), expected, rtol=1e-9)


def test_no_gradient_goes_through_the_weight(logits, target):
    student = logits[0].clone().requires_grad_()
    wsld(student, logits[1], target, 2.0).backward()
    weights, _ = expected_terms(*logits, target, 2.0)
    q, p = (softmax(x.numpy() / 2, axis=1) for x in logits)
    np.testing.assert_allclose(student.grad, 2 * weights[:, None] * (q - p) / 16, atol=1e-12)


def test_what_the_student_knows_better_hardly_counts():
    teacher, sure = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[9.0, 0.0, 0.0]])
    y = torch.tensor([0])
    ratio = (-log_softmax(sure.numpy())[0, 0] / -log_softmax(teacher.numpy())[0, 0]).item()
    full = rel_entr(softmax(teacher.numpy(), axis=1), softmax(sure.numpy(), axis=1)).sum()
    assert wsld(sure, teacher, y, 1.0).item() == pytest.approx(ratio * full, rel=1e-3)
    assert ratio < 1e-3


def test_a_teacher_that_is_certain_and_right_gives_full_weight_until_the_student_is_too():
    teacher, y = torch.tensor([[1e4, 0.0]]), torch.tensor([0])
    assert wsld(torch.zeros(1, 2), teacher, y, 1.0).item() == pytest.approx(np.log(2))
    assert wsld(teacher.clone(), teacher, y, 1.0).item() == 0


def test_a_temperature_that_is_not_positive_is_refused(logits, target):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        WSLD(temperature=0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        wsld(*logits, target, 0)
