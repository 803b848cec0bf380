import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from kdexp.losses.deit_hard import DeiTHard, deit_hard


def test_it_is_the_log_loss_with_the_teachers_decisions_as_labels(logits):
    student, teacher = logits
    decisions = teacher.numpy().argmax(1)
    expected = log_loss(decisions, student.softmax(1).numpy(), labels=np.arange(6))
    np.testing.assert_allclose(deit_hard(student, teacher), expected, rtol=1e-9)
    np.testing.assert_allclose(DeiTHard()(student, teacher, torch.full((16,), -1)), expected, rtol=1e-9)


def test_only_the_decision_of_the_teacher_counts(logits):
    student, teacher = logits
    assert torch.equal(deit_hard(student, teacher), deit_hard(student, 7 * teacher + 1))


def test_a_sigmoid_decides_at_zero():
    student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.1, -5.0]])
    expected = (np.log(2) + np.log1p(np.exp(2))) / 2  # yes at p = 1/2, and no at logit 2
    assert deit_hard(student, teacher, kind="multilabel").item() == pytest.approx(expected, rel=1e-6)
