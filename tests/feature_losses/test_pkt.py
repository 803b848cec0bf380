import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.metrics.pairwise import cosine_similarity

from kdexp.contracts import Outputs
from kdexp.feature_losses.pkt import PKT, pkt


@pytest.fixture
def features():
    """Of student (6, 4) and teacher (6, 5), float64."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, size, generator=generator, dtype=torch.float64) for size in (4, 5))


def test_pkt_is_the_mean_entry_of_the_rows_divergences(features):
    q, p = ((cosine_similarity(x.numpy()) + 1) / 2 for x in features)
    q, p = (x / x.sum(1, keepdims=True) for x in (q, p))
    np.testing.assert_allclose(pkt(*features), rel_entr(p, q).mean(), rtol=1e-10)


def test_a_hand_computed_case():
    # Student: samples at a right angle, similarities 1 and 1/2, so 2/3 and 1/3. Teacher: equal samples, 1/2 each.
    student, teacher = torch.eye(2), torch.ones(2, 1)
    row = 0.5 * np.log(0.5 / (2 / 3)) + 0.5 * np.log(0.5 / (1 / 3))
    assert pkt(student, teacher).item() == pytest.approx(2 * row / 4, rel=1e-5)


def test_lengths_and_a_rotation_change_nothing(features):
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    moved = torch.arange(1.0, 7).unsqueeze(1) * features[0] @ rotation
    torch.testing.assert_close(pkt(moved, features[1]), pkt(*features))
    assert pkt(moved, features[0]).item() == pytest.approx(0, abs=1e-15)


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(features):
    student, teacher = (x.requires_grad_() for x in features)
    assert torch.autograd.gradcheck(lambda x: pkt(x, teacher), student)
    pkt(student, teacher).backward()
    assert teacher.grad is None


def test_opposite_samples_have_a_finite_value_and_gradient():
    student = torch.tensor([[2.0, 0.0], [-3.0, 0.0], [1.0, 1.0]], requires_grad=True)  # a cosine of just -1
    teacher = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    loss = pkt(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert pkt(teacher, student.detach()).isfinite()


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3)])
def test_zero_constant_and_single_features_have_finite_gradients(student):
    student = student.requires_grad_()
    loss = pkt(student, torch.rand(len(student), 2))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    if len(student) == 1:
        assert loss.item() == 0
        assert student.grad.abs().max() < 1e-6


def test_half_precision_is_raised_under_autocast(features):
    student, teacher = (x.half() for x in features)
    with torch.autocast("cpu", torch.bfloat16):
        value = pkt(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, pkt(student.float(), teacher.float()))


def test_the_module_reads_the_penultimate_features(pair):
    loss = PKT(pair)
    assert (loss.student_paths, loss.teacher_paths) == (["pool"], ["pool"])
    student, teacher = torch.rand(6, 16), torch.rand(6, 24)
    value = loss(Outputs(None, {"pool": student}), Outputs(None, {"pool": teacher}), None)
    assert value == pkt(student, teacher)
