from dataclasses import replace

import numpy as np
import pytest
import torch

from kdexp.contracts import Outputs
from kdexp.feature_losses.at import AT, at


@pytest.fixture
def maps():
    """Of a student and a teacher with other channels: (3, 4, 2, 3) and (3, 5, 2, 3), float64."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, channels, 2, 3, generator=generator, dtype=torch.float64) for channels in (4, 5)]


def attention(sample, power):
    """The map of one sample (C, H, W), position by position."""
    positions = np.array([np.mean(np.abs(channels) ** power) for channels in sample.reshape(len(sample), -1).T])
    return positions / np.sqrt(np.sum(positions**2))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_at_is_the_mean_square_between_attention_maps(maps, power):
    samples = zip(*(x.numpy() for x in maps), strict=True)
    expected = np.mean([(attention(s, power) - attention(t, power)) ** 2 for s, t in samples])
    np.testing.assert_allclose(at(*maps, power=power), expected, rtol=1e-10)


def test_attention_to_different_positions_is_as_far_apart_as_it_gets():
    here, there = torch.zeros(2, 1, 3, 1, 4).unbind()
    here[..., 0], there[..., 3] = 5.0, 0.1
    assert at(here, there).item() == pytest.approx(2 / 4)


def test_signs_channels_and_the_scale_of_a_sample_do_not_matter(maps):
    student = maps[0]
    scale = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None, None]
    assert at(student, -scale * student.flip(1)).item() == pytest.approx(0, abs=1e-30)
    assert at(student, student.flip(2)) > 0.01


@pytest.mark.parametrize("larger", [0, 1])
def test_the_larger_map_is_averaged_to_the_smaller(maps, larger):
    big = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0 for x in maps]
    pair = list(maps)
    pair[larger] = big[larger]
    torch.testing.assert_close(at(*pair), at(*maps))


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(maps):
    student, teacher = (x.requires_grad_() for x in maps)
    assert torch.autograd.gradcheck(lambda x: at(x, teacher), student)
    at(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_have_a_finite_gradient(maps, power, value):
    student = torch.full((3, 4, 2, 3), value, requires_grad=True)
    loss = at(student, maps[1].float(), power=power)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10


def test_the_module_is_the_sum_over_the_stages_that_correspond(pair, batch):
    layers = replace(pair.teacher.layers, stages=["stage2", "stage3"])
    loss = AT(replace(pair, teacher=replace(pair.teacher, layers=layers)), power=1.0)
    assert loss.student_paths == loss.teacher_paths == ["stage2", "stage3"]
    student = Outputs(None, {"stage2": torch.randn(6, 8, 4, 4), "stage3": torch.randn(6, 16, 2, 2)})
    teacher = Outputs(None, {"stage2": torch.randn(6, 12, 4, 4), "stage3": torch.randn(6, 24, 2, 2)})
    terms = [at(student.features[path], teacher.features[path], power=1.0) for path in loss.student_paths]
    torch.testing.assert_close(loss(student, teacher, batch), terms[0] + terms[1])
    assert not list(loss.parameters())


def test_bad_settings_and_vectors_are_refused(pair, vector_pair):
    with pytest.raises(ValueError, match=r"^feature_loss.at.power must be >= 1, got 0.5$"):
        AT(pair, power=0.5)
    with pytest.raises(ValueError, match=r"^feature_loss=at needs a stage of maps .*, got \(7,\) from the student's"):
        AT(vector_pair)
