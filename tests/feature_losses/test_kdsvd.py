from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.kdsvd import KDSVD, _right_singular, kdsvd
from kdexp.feature_losses.maps import Regressor

CHANNELS = (3, 6, 7)
# More positions than channels, fewer, and one.
SIZES = ((2, 4), (2, 2), (1, 5))


def draw(seed=0, channels=CHANNELS, sizes=SIZES, samples=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(samples, c, *size) for c, size in zip(channels, sizes, strict=True)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def decomposed(maps, count):
    """Singular values and right singular vectors, one a row, of one sample (C, H, W)."""
    _, values, vectors = np.linalg.svd(maps.reshape(len(maps), -1).T, full_matrices=False)
    return values[:count], vectors[:count]


def sample_loss(student, teacher, k):
    """For one sample, given the (C, H, W) maps of each stage: LAPACK's decomposition, and loops."""
    own, goals = [], []
    for student_maps, teacher_maps in zip(student, teacher, strict=True):
        (values, goal), (_, found) = decomposed(teacher_maps, k), decomposed(student_maps, k + 3)
        own.append([])
        goals.append([])
        for value, vector in zip(values / np.linalg.norm(values), goal, strict=True):
            vector = vector * np.sign(vector.sum())
            cosines = [np.dot(candidate, vector) for candidate in found]
            best = np.argmax(np.abs(cosines))
            own[-1].append(value * np.sign(cosines[best]) * found[best])
            goals[-1].append(value * vector)
    total = 0
    for stage in range(len(own) - 1):
        for i in range(k):
            for c in range(len(own[stage][i])):
                for d in range(len(own[stage + 1][i])):
                    ours, theirs = (np.exp(-((v[stage][i][c] - v[stage + 1][i][d]) ** 2) / 8) for v in (own, goals))
                    total += (ours - theirs) ** 2
    return total


@pytest.mark.parametrize("k", [1, 2])
def test_kdsvd_is_the_squared_error_of_kernels_between_singular_vectors(k):
    student, teacher = draw(), draw(seed=1)
    losses = [sample_loss([x[n].numpy() for x in student], [x[n].numpy() for x in teacher], k) for n in range(3)]
    np.testing.assert_allclose(kdsvd(student, teacher, k=k), np.mean(losses), rtol=1e-9)


def test_student_and_teacher_may_differ_in_size():
    student, teacher = draw(), draw(seed=1, sizes=((3, 3), (1, 1), (2, 4)))
    losses = [sample_loss([x[n].numpy() for x in student], [x[n].numpy() for x in teacher], 1) for n in range(3)]
    np.testing.assert_allclose(kdsvd(student, teacher), np.mean(losses), rtol=1e-9)


def test_sign_scale_and_place_do_not_matter_but_channels_do():
    maps = draw()
    assert kdsvd(maps, [-3 * x.flip(2, 3) for x in maps], k=2).item() == pytest.approx(0, abs=1e-20)
    assert kdsvd(maps, maps, k=2) == 0
    assert kdsvd(maps, [maps[0].roll(1, 1), *maps[1:]]) > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_singular_vectors_have_the_gradient_of_lapacks_decomposition(size):
    (maps,) = draw(channels=(4,), sizes=(size,))
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    vectors, values = _right_singular(ours, 3)
    _, s, v = torch.linalg.svd(theirs.flatten(2).mT, full_matrices=False)
    torch.testing.assert_close(values, (s / s.norm(dim=1, keepdim=True))[:, :3])
    sign = (vectors * v.mT[:, :, :3]).sum(1, keepdim=True).sign().detach()
    torch.testing.assert_close(vectors, sign * v.mT[:, :, :3])
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (vectors * direction).sum().backward()
    (sign * v.mT[:, :, :3] * direction).sum().backward()
    assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm()


@pytest.mark.parametrize("k", [1, 2])
def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(k):
    student, teacher = ([x.requires_grad_() for x in draw(seed, samples=2)] for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda *maps: kdsvd(maps, teacher, k=k), student, rtol=1e-3, atol=1e-7)
    kdsvd(student, teacher, k=k).backward()
    assert all(x.grad is None for x in teacher)


def test_equal_singular_values_have_a_finite_gradient_where_lapacks_is_not():
    maps = torch.eye(4).reshape(1, 4, 2, 2)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    direction = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    (torch.linalg.svd(theirs.flatten(2).mT).Vh * direction).sum().backward()
    assert not theirs.grad.isfinite().all()
    (_right_singular(ours, 4)[0] * direction).sum().backward()
    assert ours.grad.isfinite().all()


def identity(maps):
    samples, channels, *size = maps.shape
    return torch.eye(channels, size[0] * size[1]).reshape(1, channels, *size).expand(samples, -1, -1, -1)


@pytest.mark.parametrize("fill", [torch.zeros_like, torch.ones_like, identity, lambda x: 1e4 * x, lambda x: 1e-6 * x])
@pytest.mark.parametrize("of_teacher", [False, True])
def test_degenerate_maps_have_a_finite_value_and_gradient(fill, of_teacher):
    student, teacher = ([x.float() for x in draw(seed)] for seed in (0, 1))
    if of_teacher:
        teacher = [fill(x) for x in teacher]
    else:
        student = [fill(x) for x in student]
    student = [x.clone().requires_grad_() for x in student]
    loss = kdsvd(student, teacher, k=1)
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in student)


def test_the_module_connects_stages_of_other_channels(pair, batch):
    loss = KDSVD(pair, k=2)
    assert loss.student_paths == loss.teacher_paths == ["stage1", "stage2", "stage3"]
    assert all(isinstance(c, Regressor) for c in loss.connectors)
    sizes = {"stage1": (4, 6, 8), "stage2": (8, 12, 4), "stage3": (16, 24, 2)}
    student = {path: torch.rand(6, own, size, size) for path, (own, _, size) in sizes.items()}
    teacher = {path: torch.rand(6, goal, size, size) for path, (_, goal, size) in sizes.items()}
    connected = [
        torch.einsum("oc,nchw->nohw", c.convolution.weight[:, :, 0, 0], student[path])
        + c.convolution.bias[:, None, None]
        for c, path in zip(loss.connectors, sizes, strict=True)
    ]
    found = loss(Outputs(None, student), Outputs(None, teacher), batch)
    torch.testing.assert_close(found, kdsvd(connected, list(teacher.values()), k=2), rtol=1e-3, atol=1e-5)


def test_equal_channels_need_no_connector(equal_pair):
    assert all(isinstance(c, nn.Identity) for c in KDSVD(equal_pair).connectors)


@pytest.mark.parametrize("k", [0, 5])
def test_more_vectors_than_positions_are_refused(pair, k):
    with pytest.raises(ValueError, match=rf"^feature_loss.kdsvd.k must be from 1 to 4, got {k}$"):
        KDSVD(pair, k=k)


def test_a_single_stage_is_refused(pair, vector_pair):
    message = r"^feature_loss=kdsvd needs at least 2 stages in both networks, got 1$"
    with pytest.raises(ValueError, match=message):
        KDSVD(vector_pair)
    layers = replace(pair.student.layers, stages=["stage3"])
    with pytest.raises(ValueError, match=message):
        KDSVD(replace(pair, student=replace(pair.student, layers=layers)))


def test_autocast_changes_nothing():
    student, teacher = ([x.float() for x in draw(seed)] for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        value = kdsvd(student, teacher)
    assert torch.equal(value, kdsvd(student, teacher))
