import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine as cosine_distance
from sklearn.metrics import mean_squared_error
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.maps import unit
from kdexp.feature_losses.penultimate import Cosine, FeatureMSE, cosine, feature_mse


@pytest.fixture
def features():
    """Of student and teacher: (6, 5) float64."""
    return torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


def outputs(loss, student, teacher):
    return Outputs(None, {loss.student_paths[0]: student}), Outputs(None, {loss.teacher_paths[0]: teacher})


def test_cosine_is_the_mean_cosine_distance_of_the_samples(features):
    expected = np.mean([cosine_distance(s, t) for s, t in zip(*(x.numpy() for x in features), strict=True)])
    np.testing.assert_allclose(cosine(*features), expected, rtol=1e-12)
    lengths = torch.arange(1.0, 7).unsqueeze(1)
    np.testing.assert_allclose(cosine(features[0] * lengths, 7 * features[1]), expected, rtol=1e-12)


def test_cosine_of_known_directions():
    student = torch.tensor([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-2.0, 0.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    expected = (0 + 1 + (1 - 0.5**0.5) + 2) / 4
    assert cosine(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_feature_mse_is_the_mean_squared_error(features):
    np.testing.assert_allclose(feature_mse(*features), mean_squared_error(features[1], features[0]), rtol=1e-12)


@pytest.mark.parametrize("function", [cosine, feature_mse])
def test_gradient_passes_a_finite_difference_check(features, function):
    student = features[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, features[1]), student)


def test_the_teacher_gets_no_gradient(features):
    teacher = features[1].requires_grad_()
    for function in (cosine, feature_mse):
        assert not function(features[0], teacher).requires_grad


def test_a_vector_of_zeros_has_cosine_zero_and_a_gradient_of_ordinary_size():
    student = torch.zeros(2, 3, requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    loss = cosine(student, teacher)
    loss.backward()
    assert loss.item() == 1
    assert student.grad.abs().max() <= 1


def test_unit_gives_length_one_or_zeros():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-12, 0.0]])
    torch.testing.assert_close(unit(vectors), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize("method", [Cosine, FeatureMSE])
def test_networks_of_the_same_width_are_compared_as_they_are(equal_pair, method):
    loss = method(equal_pair)
    assert not list(loss.parameters())
    features = torch.rand(6, 16)
    assert loss(*outputs(loss, features, features), None).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", [Cosine, FeatureMSE])
def test_other_widths_are_projected_by_a_trained_layer(pair, vector_pair, method):
    for each, (own, goal) in ((pair, (16, 24)), (vector_pair, (7, 9))):
        loss = method(each)
        assert isinstance(loss.projection, nn.Linear)
        assert (loss.projection.in_features, loss.projection.out_features) == (own, goal)
        student = torch.rand(6, own)
        with torch.no_grad():
            fits = loss.projection(student)
        assert loss(*outputs(loss, student, fits), None).item() == pytest.approx(0, abs=1e-6)
        loss(*outputs(loss, student, torch.rand(6, goal)), None).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in loss.parameters())


def test_half_precision_is_raised():
    student, teacher = torch.tensor([[300.0, 400.0]]).half(), torch.tensor([[0.0, 500.0]]).half()
    for function, expected in ((cosine, 0.2), (feature_mse, (300.0**2 + 100.0**2) / 2)):
        value = function(student, teacher)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected, rel=1e-6)
