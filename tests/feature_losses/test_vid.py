from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.vid import VID, vid

SIZES = {"stage1": 8, "stage2": 4, "stage3": 2}


@pytest.fixture
def maps():
    """Predicted and the teacher's (4, 3, 2, 2), float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 3, 2, 2, generator=generator, dtype=torch.float64).unbind()


def outputs(paths, channels, samples=6):
    return Outputs(None, {p: torch.rand(samples, c, SIZES[p], SIZES[p]) for p, c in zip(paths, channels, strict=True)})


def test_vid_is_the_normal_densitys_negative_logarithm_up_to_a_constant(maps):
    variance = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    mean, teacher = (x.numpy() for x in maps)
    density = norm.logpdf(teacher, mean, np.sqrt(variance.numpy())[:, None, None])
    np.testing.assert_allclose(vid(*maps, variance), -density.mean() - 0.5 * np.log(2 * np.pi), rtol=1e-10)


def test_the_best_variance_is_the_mean_squared_error_of_the_channel(maps):
    best = (maps[0] - maps[1]).square().mean((0, 2, 3)).requires_grad_()
    vid(*maps, best).backward()
    assert best.grad.abs().max() < 1e-12


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(maps):
    predicted, teacher = (x.requires_grad_() for x in maps)
    variance = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, v: vid(x, teacher, v), (predicted, variance))
    vid(predicted, teacher, variance).backward()
    assert teacher.grad is None


def test_the_module_has_a_regressor_and_variances_for_each_matched_stage(pair):
    loss = VID(pair)
    assert loss.student_paths == loss.teacher_paths == ["stage1", "stage2", "stage3"]
    for regressor, (own, goal) in zip(loss.regressors, ((4, 6), (8, 12), (16, 24)), strict=True):
        convolutions = [layer for layer in regressor if isinstance(layer, nn.Conv2d)]
        assert [c.weight.shape for c in convolutions] == [(goal, own, 1, 1), (goal, goal, 1, 1), (goal, goal, 1, 1)]
        assert all(c.bias is None for c in convolutions)
    for scale, channels in zip(loss.scales, (6, 12, 24), strict=True):
        torch.testing.assert_close(F.softplus(scale) + 1e-5, torch.full((channels,), 5.0))


def test_the_module_is_the_sum_over_the_stages(pair):
    loss = VID(pair, initial_variance=2.0)
    student, teacher = outputs(loss.student_paths, (4, 8, 16)), outputs(loss.teacher_paths, (6, 12, 24))
    expected = 0.0
    for path, regressor in zip(loss.student_paths, loss.regressors, strict=True):
        mean = regressor(student.features[path]).detach().numpy()
        expected -= norm.logpdf(teacher.features[path].numpy(), mean, np.sqrt(2)).mean() + 0.5 * np.log(2 * np.pi)
    assert loss(student, teacher, None).item() == pytest.approx(expected, rel=1e-5)


def test_every_parameter_is_trained_the_variances_too(pair):
    loss = VID(pair)
    loss(outputs(loss.student_paths, (4, 8, 16)), outputs(loss.teacher_paths, (6, 12, 24)), None).backward()
    assert len(list(loss.parameters())) == 3 * (3 + 1)
    assert all(parameter.grad.abs().sum() > 0 for parameter in loss.parameters())


def test_training_the_adapters_alone_finds_the_variance_that_is_left(pair):
    """Noise of standard deviation 1/2 that nothing can predict."""
    torch.manual_seed(0)
    one = replace(pair, teacher=replace(pair.teacher, layers=replace(pair.teacher.layers, stages=["stage1"])))
    loss = VID(one)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(150):
        student = Outputs(None, {"stage3": torch.rand(16, 16, 2, 2)})
        teacher = Outputs(None, {"stage1": 0.5 * torch.randn(16, 6, 8, 8)})
        optimizer.zero_grad()
        loss(student, teacher, None).backward()
        optimizer.step()
    # The student's maps are 2 x 2, so the teacher's are averaged to that: a variance of 1/4 over 16 positions.
    variance = F.softplus(loss.scales[0]) + 1e-5
    torch.testing.assert_close(variance, torch.full((6,), 0.25 / 16), rtol=0.6, atol=0)


def test_fewer_stages_are_matched_from_the_end_and_the_larger_map_is_averaged(pair):
    last = replace(pair.teacher.layers, stages=["stage1", "stage2"])
    loss = VID(replace(pair, teacher=replace(pair.teacher, layers=last)))
    assert (loss.student_paths, loss.teacher_paths) == (["stage2", "stage3"], ["stage1", "stage2"])
    student, teacher = outputs(loss.student_paths, (8, 16)), outputs(loss.teacher_paths, (6, 12))
    expected = 0.0
    for own, goal, regressor in zip(loss.student_paths, loss.teacher_paths, loss.regressors, strict=True):
        averaged = F.avg_pool2d(teacher.features[goal], 2)
        expected += vid(regressor(student.features[own]), averaged, torch.full((averaged.shape[1],), 5.0)).item()
    assert loss(student, teacher, None).item() == pytest.approx(expected, rel=1e-5)


def test_vectors_are_maps_of_one_position_and_one_sample_is_enough(vector_pair):
    loss = VID(vector_pair)
    student = torch.rand(1, 7, requires_grad=True)
    value = loss(Outputs(None, {"hidden": student}), Outputs(None, {"hidden": torch.rand(1, 9)}), None)
    value.backward()
    assert value.isfinite()
    assert student.grad.abs().sum() > 0


def test_half_precision_is_raised():
    predicted, teacher = torch.full((1, 1, 1, 1), 400.0).half(), torch.zeros(1, 1, 1, 1).half()
    value = vid(predicted, teacher, torch.ones(1).half())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(80000)


@pytest.mark.parametrize("variance", [1e-3, 5.0, 1e6])
def test_the_first_variance_is_what_was_asked_for(pair, variance):
    scale = VID(pair, initial_variance=variance).scales[0]
    torch.testing.assert_close(F.softplus(scale) + 1e-5, torch.full((6,), variance), rtol=1e-4, atol=0)


def test_bad_settings_are_refused(pair):
    with pytest.raises(ValueError, match=r"^feature_loss\.vid\.initial_variance must be > 1e-05, got 0$"):
        VID(pair, initial_variance=0)
