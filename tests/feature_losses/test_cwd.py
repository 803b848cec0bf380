from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch, Outputs
from kdexp.feature_losses.cwd import CWD, cwd
from kdexp.features import pair_of
from kdexp.models.unet import unet


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


def masks_pair(classes=4):
    return pair_of(*(unet(classes, (3, 8, 8), width, depth=1) for width in (2, 3)), torch.zeros(1, 3, 8, 8))


def test_logits_of_masks_are_compared_where_pixels_have_a_label_or_none_is_known(maps):
    target = torch.tensor([0, UNLABELED, VOID, 3, ABSENT, 1]).view(1, 2, 3).repeat(3, 1, 1)
    target[1], target[2] = ABSENT, 2
    loss = CWD(masks_pair(), temperature=2.0, of_logits=True)
    assert not list(loss.parameters())
    batch = Batch(torch.zeros(3, 3, 2, 3), target)
    total = 0
    for sample, kept in ((0, [0, 1, 3, 5]), (2, range(6))):
        for channel in range(4):
            q, p = (softmax(x[sample, channel].numpy().ravel()[list(kept)] / 2) for x in maps)
            total += rel_entr(p, q).sum()
    student = maps[0].clone().requires_grad_()
    value = loss(Outputs(student), Outputs(maps[1]), batch)
    np.testing.assert_allclose(value.detach(), 4 * total / 12, rtol=1e-10)
    value.backward()
    assert student.grad.isfinite().all()
    assert not student.grad.movedim(1, -1)[target < UNLABELED].any()
    np.testing.assert_allclose(loss(Outputs(maps[0]), Outputs(maps[1])), cwd(*maps, 2.0), rtol=1e-10)


def test_logits_that_are_not_maps_are_refused(pair):
    rule = (
        r"^feature_loss.cwd.of_logits must be false unless logits are maps \(N, C, H, W\), got true with logits \(2, "
    )
    with pytest.raises(ValueError, match=rule):
        CWD(replace(pair, student=replace(pair.student, shapes={**pair.student.shapes, "": (2, 4)})), of_logits=True)
