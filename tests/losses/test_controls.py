import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr, softmax

from kdexp.losses.label_smoothing import LabelSmoothing
from kdexp.losses.tf_kd import TfKD, tf_kd


def test_label_smoothing_is_the_cross_entropy_with_smoothed_labels(logits, target):
    student, teacher = logits
    labels = 0.9 * np.eye(6)[target] + 0.1 / 6
    expected = -(labels * log_softmax(student.numpy(), axis=1)).sum(1).mean()
    np.testing.assert_allclose(LabelSmoothing()(student, teacher, target), expected, rtol=1e-9)


def test_hard_term_and_smoothed_term_together_are_less_smoothing(logits, target):
    student, teacher = logits
    both = 0.3 * F.cross_entropy(student, target) + 0.7 * LabelSmoothing(0.1)(student, teacher, target)
    torch.testing.assert_close(both, F.cross_entropy(student, target, label_smoothing=0.07))


@pytest.mark.parametrize("temperature", [0.1, 20.0])
def test_tf_kd_is_the_kl_from_the_hand_made_teacher(logits, target, temperature):
    virtual = np.full((16, 6), 0.01 / 5)
    virtual[np.arange(16), target] = 0.99
    p, q = softmax(virtual / temperature, axis=1), softmax(logits[0].numpy(), axis=1)
    expected = rel_entr(p, q).sum(1).mean()
    np.testing.assert_allclose(tf_kd(logits[0], target, temperature), expected, rtol=1e-6)
    np.testing.assert_allclose(TfKD(temperature)(*logits, target), expected, rtol=1e-6)


def test_tf_kd_at_the_published_setting_is_all_but_uniform():
    # What the docstring says of C = 100: the minimum is where the student has these probabilities.
    best = np.full(100, np.exp(0.01 / 99 / 20))
    best[3] = np.exp(0.99 / 20)
    best /= best.sum()
    assert best[3] == pytest.approx(0.0105, abs=5e-5)
    student = torch.from_numpy(np.log(best))[None].requires_grad_()
    loss = tf_kd(student, torch.tensor([3]), 20.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert student.grad.abs().max() < 1e-9


def test_gradient_passes_a_finite_difference_check(logits, target):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tf_kd(z, target[:3], 2.0), student)


def test_bad_settings_are_refused(logits, target):
    with pytest.raises(ValueError, match=r"^loss.smoothing must be in \[0, 1\), got 1$"):
        LabelSmoothing(smoothing=1)
    with pytest.raises(ValueError, match=r"^loss.correct must be in \(0, 1\), got 1$"):
        TfKD(correct=1)
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        TfKD(temperature=0)
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        tf_kd(logits[0], target, 0)
