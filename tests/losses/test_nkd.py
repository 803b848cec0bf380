import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kdexp.losses.nkd import NKD, nkd


@pytest.mark.parametrize(("temperature", "gamma"), [(1.0, 1.5), (2.0, 0.7)])
def test_nkd_is_the_papers_formula(logits, target, temperature, gamma):
    expected = []
    for z_s, z_t, y in zip(*(x.numpy() for x in logits), target.tolist(), strict=True):
        target_part = -softmax(z_t)[y] * log_softmax(z_s)[y]
        q, p = softmax(z_s / temperature), softmax(z_t / temperature)
        r_s, r_t = np.delete(q, y) / (1 - q[y]), np.delete(p, y) / (1 - p[y])
        expected.append(target_part - gamma * temperature**2 * (r_t * np.log(r_s)).sum())
    np.testing.assert_allclose(nkd(*logits, target, temperature, gamma=gamma), np.mean(expected), rtol=1e-9)
    np.testing.assert_allclose(NKD(temperature, gamma=gamma)(*logits, target), np.mean(expected), rtol=1e-9)


def test_a_hand_computed_case():
    # Student (1/2, 1/4, 1/4), teacher (1/2, 3/8, 1/8), true class 0, T = 1:
    # 1/2 * log 2, and 1.5 * log 2 because the student is even on the others.
    student, teacher = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.5, 0.375, 0.125]]).log()
    assert nkd(student, teacher, torch.tensor([0]), 1.0).item() == pytest.approx(2 * np.log(2), rel=1e-6)


def test_gradient_passes_a_finite_difference_check(logits, target):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nkd(z, logits[1][:3], target[:3], 2.0), student)


def test_two_classes_warn_and_leave_the_target_part(logits):
    student, teacher = (x[:, :2] for x in logits)
    with pytest.warns(UserWarning, match="loss=nkd: the non-target term has no gradient with 2 classes"):
        found = nkd(student, teacher, torch.zeros(16, dtype=torch.long), 4.0)
    expected = -(softmax(teacher.numpy(), axis=1) * log_softmax(student.numpy(), axis=1))[:, 0].mean()
    np.testing.assert_allclose(found, expected)


def test_a_temperature_that_is_not_positive_is_refused(logits, target):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        NKD(temperature=0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        nkd(*logits, target, 0)
