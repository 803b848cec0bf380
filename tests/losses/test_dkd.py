import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdexp.losses.dkd import DKD, dkd
from kdexp.losses.kd import kd


def parts(student, teacher, target, temperature):
    """TCKD and NCKD of each sample, from probabilities, as the paper defines them."""
    tckd, nckd = [], []
    for z_s, z_t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        q, p = softmax(z_s / temperature), softmax(z_t / temperature)
        tckd.append(rel_entr([p[y], 1 - p[y]], [q[y], 1 - q[y]]).sum())
        others_p, others_q = np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y])
        nckd.append(rel_entr(others_p, others_q).sum())
    return np.array(tckd), np.array(nckd)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weights", [(1.0, 8.0), (0.0, 1.0), (3.0, 0.0)])
def test_dkd_is_the_papers_two_divergences(logits, target, temperature, weights):
    tckd, nckd = parts(*logits, target, temperature)
    expected = temperature**2 * (weights[0] * tckd + weights[1] * nckd).mean()
    found = dkd(*logits, target, temperature, tckd_weight=weights[0], nckd_weight=weights[1])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_kd_is_tckd_plus_what_the_teacher_leaves_of_nckd(logits, target):
    total = 0
    for n in range(16):
        one = (logits[0][n : n + 1], logits[1][n : n + 1], target[n : n + 1], 4.0)
        rest = 1 - (logits[1][n] / 4).softmax(0)[target[n]].item()
        total += dkd(*one, tckd_weight=1.0, nckd_weight=rest)
    torch.testing.assert_close(total / 16, kd(*logits, 4.0))


def test_gradient_passes_a_finite_difference_check(logits, target):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: dkd(z, logits[1][:3], target[:3], 2.0), student)


def test_a_gap_that_makes_log_of_softmax_infinite_has_the_right_value():
    # The student gives the true class 1 - 2e^-200; the teacher gives 1/3 to each of the three classes.
    student = torch.tensor([[200.0, 0.0, 0.0]])
    found = dkd(student, torch.zeros(1, 3), torch.tensor([0]), 1.0, nckd_weight=0.0)
    expected = 1 / 3 * np.log(1 / 3) + 2 / 3 * (np.log(2 / 3) + 200 - np.log(2))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_two_classes_warn_and_leave_the_target_part_which_is_kd(logits):
    student, teacher = (x[:, :2] for x in logits)
    target = torch.arange(16) % 2
    with pytest.warns(UserWarning, match="loss=dkd: the non-target term has no gradient with 2 classes") as said:
        found = dkd(student, teacher, target, 4.0)
    assert [warning.filename for warning in said] == [__file__]  # where the loss is called
    torch.testing.assert_close(dkd(student, teacher, target, 4.0), found)  # says it no more
    torch.testing.assert_close(found, kd(student, teacher, 4.0))


def test_the_module_hands_its_settings_on(logits, target):
    tckd, nckd = parts(*logits, target, 2.0)
    found = DKD(2.0, tckd_weight=3.0, nckd_weight=0.5)(*logits, target)
    np.testing.assert_allclose(found, 4 * (3 * tckd + 0.5 * nckd).mean(), rtol=1e-9)


def test_bad_settings_are_refused(logits, target):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        DKD(temperature=0)
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got -1$"):
        dkd(*logits, target, -1)
