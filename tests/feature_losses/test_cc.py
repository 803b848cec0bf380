import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from sklearn.preprocessing import normalize

from kdexp.contracts import Outputs
from kdexp.feature_losses.cc import CC, cc


@pytest.fixture
def features():
    """Of student (6, 4) and teacher (6, 5), float64."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, size, generator=generator, dtype=torch.float64) for size in (4, 5))


@pytest.mark.parametrize("gamma", [0.1, 0.4, 2.0])
def test_many_orders_are_the_gaussian_kernel_of_directions(features, gamma):
    student, teacher = (rbf_kernel(normalize(x.numpy()), gamma=gamma) for x in features)
    np.testing.assert_allclose(cc(*features, gamma=gamma, order=30), ((student - teacher) ** 2).mean(), rtol=1e-9)


def test_the_default_is_the_second_order_series(features):
    kernels = []
    for x in features:
        c = cosine_similarity(x.numpy())
        kernels.append(np.exp(-0.8) * (1 + 0.8 * c + 0.32 * c**2))
    np.testing.assert_allclose(cc(*features), ((kernels[0] - kernels[1]) ** 2).mean(), rtol=1e-10)


def test_the_first_order_compares_cosines():
    # Samples at a right angle against samples of one direction: two of the four cosines differ by 1.
    student, teacher = torch.eye(2), torch.ones(2, 3)
    found = cc(student, teacher, gamma=0.5, order=1)
    assert found.item() == pytest.approx(np.exp(-1) ** 2 / 2, rel=1e-6)


def test_lengths_and_a_rotation_change_nothing(features):
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    moved = torch.arange(1.0, 7).unsqueeze(1) * features[0] @ rotation
    torch.testing.assert_close(cc(moved, features[1]), cc(*features))
    assert cc(moved, features[0]).item() == pytest.approx(0, abs=1e-25)


def test_order_of_the_batch_does_not_matter_as_it_does_in_repdistillers_formula(features):
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(cc(features[0][order], features[1][order]), cc(*features))


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(features):
    student, teacher = (x.requires_grad_() for x in features)
    assert torch.autograd.gradcheck(lambda x: cc(x, teacher), student)
    cc(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3)])
def test_zero_constant_and_single_features_have_finite_gradients(student):
    student = student.requires_grad_()
    loss = cc(student, torch.rand(len(student), 2))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    if len(student) == 1:
        assert loss.item() == pytest.approx(0, abs=1e-12)


def test_half_precision_is_raised_under_autocast(features):
    student, teacher = (x.half() for x in features)
    with torch.autocast("cpu", torch.bfloat16):
        value = cc(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, cc(student.float(), teacher.float()))


def test_the_module_reads_the_penultimate_features_and_trains_nothing_else(pair):
    loss = CC(pair, gamma=0.7, order=3)
    assert (loss.student_paths, loss.teacher_paths) == (["pool"], ["pool"])
    assert not list(loss.parameters())
    student, teacher = torch.rand(6, 16), torch.rand(6, 24)
    value = loss(Outputs(None, {"pool": student}), Outputs(None, {"pool": teacher}), None)
    assert value == cc(student, teacher, gamma=0.7, order=3)


def test_bad_settings_are_refused(pair):
    with pytest.raises(ValueError, match=r"^feature_loss\.cc\.gamma must be > 0, got 0$"):
        CC(pair, gamma=0)
    with pytest.raises(ValueError, match=r"^feature_loss\.cc\.order must be at least 1, got 0$"):
        CC(pair, order=0)
