import numpy as np
import pytest
import torch
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.srrl import SRRL, srrl


@pytest.fixture
def features():
    """Of student and teacher: (6, 5) float64."""
    return torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return nn.Linear(5, 3).double().requires_grad_(False)


def outputs(student, teacher, student_path="stage3", teacher_path="pool"):
    return Outputs(None, {student_path: student}), Outputs(None, {teacher_path: teacher})


def test_srrl_is_the_squared_error_of_features_and_of_the_teachers_logits(features, classifier):
    student, teacher = (x.numpy() for x in features)
    weight, bias = classifier.weight.numpy(), classifier.bias.numpy()
    logits = [np.array([weight @ x + bias for x in rows]) for rows in (student, teacher)]
    expected = ((student - teacher) ** 2).sum() / 30 + ((logits[0] - logits[1]) ** 2).sum() / 18
    np.testing.assert_allclose(srrl(*features, classifier), expected, rtol=1e-10)


def test_features_that_the_classifier_does_not_see_count_once(classifier):
    blind = torch.linalg.svd(classifier.weight).Vh[-1]  # a direction that no logit depends on
    teacher = torch.rand(4, 5, dtype=torch.float64)
    torch.testing.assert_close(srrl(teacher + blind, teacher, classifier), torch.tensor(1 / 5, dtype=torch.float64))
    assert srrl(teacher, teacher, classifier) == 0


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(features, classifier):
    student, teacher = (x.requires_grad_() for x in features)
    assert torch.autograd.gradcheck(lambda x: srrl(x, teacher, classifier), student)
    srrl(student, teacher, classifier).backward()
    assert teacher.grad is None


def test_the_module_connects_the_last_stage_and_keeps_a_frozen_copy_of_the_teachers_classifier(pair):
    loss = SRRL(pair)
    assert (loss.student_paths, loss.teacher_paths) == (["stage3"], ["pool"])
    convolution, norm, relu = loss.connector
    assert convolution.weight.shape == (24, 16, 1, 1)
    assert convolution.bias is None
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)
    own = pair.teacher.network.classifier
    assert loss.classifier is not own
    assert torch.equal(loss.classifier.weight, own.weight)
    assert own.weight.requires_grad  # as it was
    assert {name for name, p in loss.named_parameters() if p.requires_grad} == {
        "connector.0.weight",
        "connector.1.weight",
        "connector.1.bias",
    }


def test_the_module_compares_the_mean_of_the_connected_maps(pair):
    loss = SRRL(pair).eval()
    torch.manual_seed(1)
    loss.connector[1].running_mean.normal_()
    loss.connector[1].running_var.uniform_(1, 2)
    maps, teacher = torch.rand(6, 16, 2, 2), torch.rand(6, 24)
    weight, norm = loss.connector[0].weight[:, :, 0, 0], loss.connector[1]
    connected = torch.einsum("oc,nchw->nohw", weight, maps)
    shape = (1, 24, 1, 1)
    connected = (connected - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    expected = srrl(connected.clamp(min=0).sum((2, 3)) / 4, teacher, pair.teacher.network.classifier)
    torch.testing.assert_close(loss(*outputs(maps, teacher), None), expected)


def test_a_step_trains_the_connector_and_leaves_the_classifier(pair):
    loss = SRRL(pair)
    before = loss.classifier.weight.clone()
    maps = torch.rand(6, 16, 2, 2, requires_grad=True)
    loss(*outputs(maps, torch.rand(6, 24)), None).backward()
    assert maps.grad.abs().sum() > 0
    trained = [p for p in loss.parameters() if p.requires_grad]
    assert all(p.grad.abs().sum() > 0 for p in trained)
    torch.optim.SGD(loss.parameters(), lr=0.1, weight_decay=0.1).step()
    assert torch.equal(loss.classifier.weight, before)


def test_half_precision_is_raised_under_autocast(features, classifier):
    student, teacher = (x.half() for x in features)
    classifier.float()
    with torch.autocast("cpu", torch.bfloat16):
        value = srrl(student, teacher, classifier)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, srrl(student.float(), teacher.float(), classifier))


@pytest.mark.parametrize("maps", [torch.zeros(6, 16, 2, 2), torch.ones(6, 16, 2, 2), 1e4 * torch.rand(1, 16, 2, 2)])
def test_zero_constant_and_single_maps_have_finite_gradients(pair, maps):
    loss = SRRL(pair)
    maps = maps.requires_grad_()
    value = loss(*outputs(maps, torch.rand(len(maps), 24)), None)
    value.backward()
    assert value.isfinite()
    assert maps.grad.isfinite().all()


def test_one_vector_is_enough(vector_pair):
    loss = SRRL(vector_pair)
    student = torch.rand(1, 7, requires_grad=True)
    value = loss(*outputs(student, torch.rand(1, 9), "hidden", "hidden"), None)
    value.backward()
    assert value.isfinite()
    assert student.grad.abs().sum() > 0
