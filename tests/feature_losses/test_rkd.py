from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.special import huber

from kdexp.contracts import Outputs
from kdexp.feature_losses.rkd import RKD, rkd


@pytest.fixture
def features():
    """Of student (6, 4) and teacher (6, 5), float64."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, size, generator=generator, dtype=torch.float64) for size in (4, 5))


def angle(x, i, j, k):
    """The cosine at i between j and k; 0 where that is no angle."""
    a, b = x[j] - x[i], x[k] - x[i]
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


def parts(student, teacher):
    """Distance and angle part, by the paper's definitions."""
    d_s, d_t = (squareform(pdist(x)) / pdist(x).mean() for x in (student, teacher))
    triples = product(range(len(student)), repeat=3)
    angles = np.mean([huber(1, angle(student, *t) - angle(teacher, *t)) for t in triples])
    return huber(1, d_s - d_t).mean(), angles


def test_rkd_is_the_papers_distances_and_angles(features):
    distances, angles = parts(*(x.numpy() for x in features))
    np.testing.assert_allclose(rkd(*features), 25 * distances + 50 * angles, rtol=1e-10)
    np.testing.assert_allclose(rkd(*features, distance_weight=0.5, angle_weight=0), 0.5 * distances, rtol=1e-10)


def test_far_distances_count_linearly():
    # Eleven samples close together and one far away; the teacher's are all at the same distance.
    student, teacher = torch.arange(12.0).unsqueeze(1), torch.eye(12)
    student[11] = 1000
    distances = pdist(student.numpy())
    differences = distances / distances.mean() - 1
    assert differences.max() > 3
    expected = 2 * huber(1, differences).sum() / 12**2
    assert rkd(student, teacher, distance_weight=1, angle_weight=0).item() == pytest.approx(expected, rel=1e-5)


def test_equal_samples_do_not_count_in_the_mean_distance():
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])  # all at distance 1
    # The mean is 9, so only the pair of equal samples, at 0 instead of 1, differs; it comes twice among 9 pairs.
    found = rkd(student, teacher, distance_weight=1, angle_weight=0)
    assert found.item() == pytest.approx(2 * huber(1, 1.0) / 9, rel=1e-5)


def test_a_right_angle_against_a_straight_line():
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0], [1.0], [-1.0]])
    # At 0: cosine 0 against -1. At 1 and at 2: sqrt(1/2) against 1. Each angle comes as (j, k) and (k, j).
    expected = 2 * (huber(1, 1.0) + 2 * huber(1, 1 - 0.5**0.5)) / 27
    assert rkd(student, teacher, distance_weight=0, angle_weight=1).item() == pytest.approx(expected, rel=1e-6)


def test_a_shift_a_rotation_and_a_factor_change_nothing(features):
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    moved = 3 * features[0] @ rotation + 5
    torch.testing.assert_close(rkd(moved, features[1]), rkd(*features))
    assert rkd(moved, features[0]).item() == pytest.approx(0, abs=1e-20)


def test_close_samples_far_from_the_origin_keep_their_distances(features):
    student, teacher = (x.float() for x in features)
    near = (student * 64).round() / 64  # so that the shift is exact
    torch.testing.assert_close(rkd(near + 1024, teacher), rkd(near, teacher))


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(features):
    student, teacher = (x.requires_grad_() for x in features)
    assert torch.autograd.gradcheck(lambda x: rkd(x, teacher), student)
    rkd(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3)])
def test_equal_and_single_features_have_a_gradient_of_zero(student):
    student = student.requires_grad_()
    loss = rkd(student, torch.rand(len(student), 2))
    loss.backward()
    assert loss.isfinite()
    assert not student.grad.any()
    assert (loss.item() == 0) == (len(student) == 1)


def test_two_equal_samples_among_others_have_gradients_of_ordinary_size(features):
    student = features[0].clone()
    student[1] = student[0]
    student.requires_grad_()
    rkd(student, features[1]).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 100


def test_half_precision_is_raised_under_autocast(features):
    student, teacher = (1000 * x.half() for x in features)
    with torch.autocast("cpu", torch.bfloat16):
        value = rkd(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, rkd(student.float(), teacher.float()))


def test_the_module_reads_the_penultimate_features(pair):
    loss = RKD(pair, distance_weight=2, angle_weight=3)
    assert (loss.student_paths, loss.teacher_paths) == (["pool"], ["pool"])
    student, teacher = torch.rand(6, 16), torch.rand(6, 24)
    value = loss(Outputs(None, {"pool": student}), Outputs(None, {"pool": teacher}), None)
    assert value == rkd(student, teacher, distance_weight=2, angle_weight=3)


def test_bad_settings_are_refused(pair):
    with pytest.raises(ValueError, match=r"^feature_loss\.rkd\.distance_weight must be >= 0, got -1$"):
        RKD(pair, distance_weight=-1)
    with pytest.raises(ValueError, match=r"^feature_loss\.rkd\.angle_weight must be >= 0, got -1$"):
        RKD(pair, angle_weight=-1)
