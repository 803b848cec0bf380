import numpy as np
import pytest
import torch
from pairs import MLP, SHAPE, make_pair
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.ickd import ICKD, ickd
from kdexp.models.mlp import mlp


@pytest.fixture
def maps():
    """Of a student and a teacher of another size: (3, 4, 2, 2) and (3, 4, 3, 3), float64."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 4, size, size, generator=generator, dtype=torch.float64) for size in (2, 3)]


def correlations(sample):
    """(C, C) for one sample (C, H, W), entry by entry; each row at length 1."""
    rows = []
    for a in sample:
        row = np.array([np.sum(a * b) for b in sample])
        rows.append(row / np.sqrt(np.sum(row**2)))
    return np.array(rows)


def test_ickd_is_the_squared_distance_of_rows_of_correlations(maps):
    samples = zip(*(x.numpy() for x in maps), strict=True)
    distances = [np.sum((correlations(s) - correlations(t)) ** 2) for s, t in samples]
    np.testing.assert_allclose(ickd(*maps), sum(distances) / (3 * 4), rtol=1e-10)


def test_opposite_rows_are_as_far_apart_as_it_gets():
    # Two channels that go along with each other alone, or against: rows (1, 1) and (1, -1) at length 1.
    same, opposite = torch.tensor([[1.0], [1.0]])[None, :, None], torch.tensor([[1.0], [-1.0]])[None, :, None]
    assert ickd(same, opposite).item() == pytest.approx(2)


def test_scale_and_place_do_not_matter_but_the_order_of_channels_does(maps):
    student = maps[0]
    scale = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None, None]
    assert ickd(student, -scale * student.flip(2, 3)).item() == pytest.approx(0, abs=1e-25)
    assert ickd(student, student.flip(1)) > 0.01


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(maps):
    student, teacher = (x.requires_grad_() for x in maps)
    assert torch.autograd.gradcheck(lambda x: ickd(x, teacher), student)
    ickd(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_have_a_finite_gradient(maps, value):
    student = torch.full((3, 4, 2, 2), value, requires_grad=True)
    loss = ickd(student, maps[1].float())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_the_module_compares_the_last_stages_through_a_convolution(pair, batch):
    loss = ICKD(pair)
    assert loss.student_paths == loss.teacher_paths == ["stage3"]
    student, teacher = torch.randn(6, 16, 2, 2), torch.randn(6, 24, 2, 2)
    weight, bias = loss.connector.parameters()
    connected = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], student) + bias[:, None, None]
    found = loss(Outputs(None, {"stage3": student}), Outputs(None, {"stage3": teacher}), batch)
    torch.testing.assert_close(found, ickd(connected, teacher), rtol=1e-4, atol=1e-6)


def test_equal_channels_need_no_convolution(equal_pair):
    assert isinstance(ICKD(equal_pair).connector, nn.Identity)


def test_a_vector_says_which_of_its_entries_have_one_sign(batch):
    loss = ICKD(make_pair(mlp(5, SHAPE, hidden=[3]), mlp(5, SHAPE, hidden=[3]), MLP, MLP))
    student = torch.tensor([[1.0, 2.0, -2.0]])
    teacher = torch.tensor([[-2.0, -4.0, -4.0]])
    # Rows of the student: +-(1, 2, -2) / 3, of the teacher: (1, 2, 2) / 3.
    found = loss(Outputs(None, {"hidden": student}), Outputs(None, {"hidden": teacher}), batch)
    assert found.item() == pytest.approx((16 / 9 + 16 / 9 + (4 + 16) / 9) / 3)


def test_autocast_changes_nothing(maps):
    student, teacher = (x.float() for x in maps)
    with torch.autocast("cpu", torch.bfloat16):
        value = ickd(student, teacher)
    assert torch.equal(value, ickd(student, teacher))
