import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import brentq
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import entropy

from kdexp.contracts import UNLABELED
from kdexp.losses.kd import kd
from kdexp.losses.label_smoothing import LabelSmoothing
from kdexp.losses.matched_smoothing import MatchedSmoothing, matched_smoothing
from kdexp.losses.permuted_kd import PermutedKD, permuted
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


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0, 1e3])
def test_matched_smoothing_is_kd_from_labels_with_the_teachers_mean_entropy(logits, target, temperature):
    student, teacher = logits
    p = softmax(teacher.numpy() / temperature, axis=1)
    wanted = entropy(p, axis=1).mean()

    def labels(smoothing):
        return (1 - smoothing) * np.eye(6)[target] + smoothing / 6

    smoothing = brentq(lambda e: entropy(labels(e), axis=1).mean() - wanted, 0, 1) if wanted < np.log(6) - 1e-9 else 1.0
    q = softmax(student.numpy() / temperature, axis=1)
    expected = temperature**2 * rel_entr(labels(smoothing), q).sum(1).mean()
    np.testing.assert_allclose(matched_smoothing(student, teacher, target, temperature), expected, rtol=2e-4)


def test_matched_smoothing_hears_nothing_of_the_teacher_but_its_uncertainty(logits, target):
    student, teacher = logits
    other = teacher[:, torch.tensor([3, 5, 0, 1, 2, 4])].flip(0)
    for own, theirs in ((teacher, other), (teacher, teacher + 3)):
        found = matched_smoothing(student, own, target, 2.0)
        torch.testing.assert_close(found, matched_smoothing(student, theirs, target, 2.0))
        torch.testing.assert_close(found, MatchedSmoothing(2.0)(student, own, target))
    certain = 1e4 * F.one_hot(target, 6).double()
    found = matched_smoothing(student, certain, target, 1.0)
    torch.testing.assert_close(found, F.cross_entropy(student, target), rtol=1e-4, atol=1e-4)
    half = target.clone()
    half[::2] = UNLABELED
    without = matched_smoothing(student[1::2], teacher[1::2], target[1::2], 2.0)
    torch.testing.assert_close(matched_smoothing(student, teacher, half, 2.0), without)


def test_a_permuted_teacher_keeps_the_truth_and_the_others_probabilities(target):
    logits = torch.randn(16, 6)
    torch.manual_seed(0)
    found = permuted(logits, target)
    rows = torch.arange(16)
    assert torch.equal(found[rows, target], logits[rows, target])
    assert torch.equal(found.sort(1).values, logits.sort(1).values)
    moved = found != logits
    assert not moved[rows, target].any()
    assert moved.any(1).float().mean() > 0.8
    assert not torch.equal(permuted(logits, target), found), "another order each time"


def test_a_permuted_teacher_favours_no_class():
    """Over many draws each wrong class gets each wrong probability as often."""
    torch.manual_seed(0)
    logits = torch.tensor([[5.0, 1, 2, 3]]).repeat(6000, 1)
    found = permuted(logits, torch.zeros(6000, dtype=torch.int64))
    for place in (1, 2, 3):
        counts = [int((found[:, place] == value).sum()) for value in (1, 2, 3)]
        assert stats.chisquare(counts).pvalue > 0.001


def test_permuted_kd_is_kd_from_it(logits, target):
    student, teacher = logits
    torch.manual_seed(3)
    found = PermutedKD(2.0)(student, teacher, target)
    torch.manual_seed(3)
    torch.testing.assert_close(found, kd(student, permuted(teacher, target), 2.0))
    unlabelled = torch.full_like(target, UNLABELED)
    torch.manual_seed(3)
    largest = PermutedKD(2.0)(student, teacher, unlabelled)
    torch.manual_seed(3)
    torch.testing.assert_close(largest, PermutedKD(2.0)(student, teacher, teacher.argmax(1)))
    with pytest.raises(ValueError, match=r"^permuted_kd needs at least 3 classes, got 2$"):
        PermutedKD(2.0)(student[:, :2], teacher[:, :2], target % 2)


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
