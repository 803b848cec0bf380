from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.cwd import CWD, cwd


@pytest.fixture
def maps():
    """Of student and teacher: (3, 4, 2, 3), float64."""
    generator = torch.Generator().manual_seed(0)
    return (4 * torch.randn(2, 3, 4, 2, 3, generator=generator, dtype=torch.float64)).unbind()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cwd_is_the_divergence_over_positions_of_each_channel(maps, temperature):
    total = 0
    for sample in range(3):
        for channel in range(4):
            q, p = (softmax(x[sample, channel].numpy().ravel() / temperature) for x in maps)
            total += rel_entr(p, q).sum()
    np.testing.assert_allclose(cwd(*maps, temperature), temperature**2 * total / 12, rtol=1e-10)


def test_a_constant_in_a_channel_does_not_matter_but_the_position_does(maps):
    student = maps[0]
    constants = torch.tensor([0.0, 3.0, -10.0, 1e3], dtype=torch.float64)[:, None, None]
    assert cwd(student, student + constants, 4.0).item() == pytest.approx(0, abs=1e-12)
    assert cwd(student, student.flip(3), 4.0) > 0.1
    assert cwd(student, student.flip(1), 4.0) > 0.1


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(maps):
    student, teacher = (x.requires_grad_() for x in maps)
    assert torch.autograd.gradcheck(lambda x: cwd(x, teacher, 2.0), student)
    cwd(student, teacher, 2.0).backward()
    assert teacher.grad is None


def test_positions_that_the_student_rules_out_have_the_right_value():
    # The teacher gives each of two positions a half; the student gives the second e^-400, which is 0 in float32.
    student = torch.tensor([400.0, 0.0])[None, None, None]
    assert cwd(student, torch.zeros(1, 1, 1, 2), 1.0).item() == pytest.approx(200 - np.log(2), rel=1e-6)


def test_the_module_compares_the_last_stages_through_a_convolution(pair, batch):
    loss = CWD(pair, temperature=3.0)
    assert loss.student_paths == loss.teacher_paths == ["stage3"]
    student, teacher = torch.randn(6, 16, 2, 2), torch.randn(6, 24, 2, 2)
    weight, bias = loss.connector.parameters()
    connected = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], student) + bias[:, None, None]
    found = loss(Outputs(None, {"stage3": student}), Outputs(None, {"stage3": teacher}), batch)
    torch.testing.assert_close(found, cwd(connected, teacher, 3.0), rtol=1e-4, atol=1e-6)


def test_equal_channels_need_no_convolution_and_sizes_may_differ(equal_pair, batch):
    assert isinstance(CWD(equal_pair).connector, nn.Identity)
    layers = replace(equal_pair.teacher.layers, stages=["stage1"])
    shapes = {"stage1": (2, 16, 4, 4)}
    loss = CWD(replace(equal_pair, teacher=replace(equal_pair.teacher, layers=layers, shapes=shapes)))
    student = torch.randn(6, 16, 2, 2)
    teacher = nn.functional.interpolate(student, (4, 4), mode="bilinear", align_corners=False)
    found = loss(Outputs(None, {"stage3": student}), Outputs(None, {"stage1": teacher}), batch)
    assert found.item() == pytest.approx(0, abs=1e-6)


def test_bad_settings_and_vectors_are_refused(pair, vector_pair):
    with pytest.raises(ValueError, match=r"^feature_loss.cwd.temperature must be > 0, got 0$"):
        CWD(pair, temperature=0)
    with pytest.raises(ValueError, match=r"^feature_loss=cwd needs a stage of maps .*, got \(7,\) from the student's"):
        CWD(vector_pair)
