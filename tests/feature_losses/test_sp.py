import numpy as np
import pytest
import torch

from kdexp.contracts import Outputs
from kdexp.feature_losses.sp import SP, sp


@pytest.fixture
def features():
    """Of student (6, 3, 2, 2) and teacher (6, 5, 4, 4), float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = (6, 3, 2, 2), (6, 5, 4, 4)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)


def test_sp_is_the_papers_sum_over_pairs(features):
    """Written out with loops, and the norm of each row."""
    gram = []
    for x in (x.numpy() for x in features):
        rows = [[(a * b).sum() for b in x] for a in x]
        gram.append([np.array(row) / np.sqrt(sum(value**2 for value in row)) for row in rows])
    expected = sum((gram[0][i][j] - gram[1][i][j]) ** 2 for i in range(6) for j in range(6)) / 36
    np.testing.assert_allclose(sp(*features), expected, rtol=1e-10)


def test_a_hand_computed_case():
    # Student: two samples that share nothing, rows (1, 0) and (0, 1). Teacher: equal samples, rows (1, 1) / sqrt(2).
    student, teacher = torch.eye(2), torch.tensor([[2.0], [2.0]])
    h = 0.5**0.5
    assert sp(student, teacher).item() == pytest.approx(2 * ((1 - h) ** 2 + h**2) / 4, rel=1e-6)


def test_a_rotation_and_a_factor_change_nothing(features):
    student = features[0].flatten(1)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    torch.testing.assert_close(sp(-3 * student @ rotation, features[1]), sp(*features))
    assert sp(-3 * student @ rotation, features[0]).item() == pytest.approx(0, abs=1e-25)


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(features):
    student, teacher = (x.requires_grad_() for x in features)
    assert torch.autograd.gradcheck(lambda x: sp(x, teacher), student)
    sp(student, teacher).backward()
    assert teacher.grad is None


def test_a_silent_sample_has_a_gradient_of_ordinary_size():
    student = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    student[1] = 0
    student.requires_grad_()
    sp(student, torch.rand(4, 2, generator=torch.Generator().manual_seed(1))).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3)])
def test_zero_constant_and_single_features_have_finite_gradients(student):
    student = student.requires_grad_()
    loss = sp(student, torch.rand(len(student), 2))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    if len(student) == 1:
        assert loss.item() == 0


def test_half_precision_is_raised_under_autocast(features):
    student, teacher = (100 * x.half() for x in features)
    with torch.autocast("cpu", torch.bfloat16):
        value = sp(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, sp(student.float(), teacher.float()))


def test_the_module_reads_the_last_stages_whatever_their_shapes(pair, vector_pair):
    loss = SP(pair)
    assert (loss.student_paths, loss.teacher_paths) == (["stage3"], ["stage3"])
    student, teacher = torch.rand(6, 16, 2, 2), torch.rand(6, 24, 2, 2)
    value = loss(Outputs(None, {"stage3": student}), Outputs(None, {"stage3": teacher}), None)
    torch.testing.assert_close(value, sp(student.flatten(1), teacher.flatten(1)))
    loss = SP(vector_pair)
    student, teacher = torch.rand(6, 7), torch.rand(6, 9)
    assert loss(Outputs(None, {"hidden": student}), Outputs(None, {"hidden": teacher}), None) == sp(student, teacher)
