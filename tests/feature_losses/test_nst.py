import itertools

import numpy as np
import pytest
import torch

from kdexp.contracts import Outputs
from kdexp.feature_losses.nst import NST, nst


def draw(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def discrepancy(student, teacher):
    """Squared MMD of one sample's channels, pair by pair."""
    groups = [[x.flatten() / np.linalg.norm(x) for x in maps] for maps in (student, teacher)]

    def mean_kernel(a, b):
        return np.mean([np.dot(x, y) ** 2 for x, y in itertools.product(a, b)])

    own, goal = groups
    return mean_kernel(own, own) + mean_kernel(goal, goal) - 2 * mean_kernel(own, goal)


# More positions than channels, as many, and fewer: the value is computed in two ways.
@pytest.mark.parametrize(("height", "width"), [(4, 3), (2, 2), (1, 3)])
def test_nst_is_the_maximum_mean_discrepancy_of_a_polynomial_kernel(height, width):
    student, teacher = draw((3, 4, height, width), (3, 6, height, width))
    expected = np.mean([discrepancy(s, t) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)])
    np.testing.assert_allclose(nst(student, teacher), expected, rtol=1e-10)


def test_channels_that_look_at_other_positions_are_as_far_apart_as_it_gets():
    own, goal = torch.zeros(2, 1, 2, 1, 4).unbind()
    own[..., 0], goal[..., 2] = 3.0, 0.2
    assert nst(own, goal).item() == pytest.approx(2)


@pytest.mark.parametrize("size", [(4, 3), (1, 2)])
def test_order_scale_and_number_of_channels_do_not_matter(size):
    (student,) = draw((3, 4, *size))
    scale = torch.tensor([0.1, 1.0, -3.0, 50.0])[:, None, None]
    assert nst(student, (scale * student).flip(1)).item() == pytest.approx(0, abs=1e-14)
    assert nst(student, student.repeat(1, 2, 1, 1)).item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("larger", [0, 1])
def test_the_larger_map_is_averaged_to_the_smaller(larger):
    maps = draw((3, 4, 2, 3), (3, 6, 2, 3))
    resized = list(maps)
    resized[larger] = maps[larger].repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(nst(*resized), nst(*maps))


@pytest.mark.parametrize("size", [(4, 3), (1, 3)])
def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none(size):
    student, teacher = (x.requires_grad_() for x in draw((2, 4, *size), (2, 6, *size)))
    assert torch.autograd.gradcheck(lambda x: nst(x, teacher), student)
    nst(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("size", [(4, 4), (1, 2)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_have_a_finite_gradient(size, value):
    (teacher,) = draw((3, 6, *size))
    student = torch.full((3, 4, *size), value, requires_grad=True)
    loss = nst(student, teacher.float())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_wide_maps_fit_in_memory():
    # All pairs of channels at all positions would be 2^32 numbers.
    maps = torch.rand(2, 1, 1024, 64, 32)
    assert nst(*maps).isfinite()


def test_the_module_is_the_sum_over_the_stages(pair, batch):
    loss = NST(pair)
    assert loss.student_paths == loss.teacher_paths == ["stage1", "stage2", "stage3"]
    sizes = zip(loss.student_paths, (4, 8, 16), (6, 12, 24), (8, 4, 2), strict=True)
    student, teacher = {}, {}
    for path, own, goal, size in sizes:
        student[path], teacher[path] = torch.rand(6, own, size, size), torch.rand(6, goal, size, size)
    terms = [nst(student[path], teacher[path]) for path in loss.student_paths]
    torch.testing.assert_close(loss(Outputs(None, student), Outputs(None, teacher), batch), sum(terms))
    assert not list(loss.parameters())


def test_vectors_are_refused(vector_pair):
    with pytest.raises(ValueError, match=r"^feature_loss=nst needs a stage of maps .*, got \(7,\) from the student's"):
        NST(vector_pair)


@pytest.mark.parametrize("size", [(4, 4), (1, 2)])
def test_autocast_changes_nothing(size):
    student, teacher = (x.float() for x in draw((3, 4, *size), (3, 6, *size)))
    with torch.autocast("cpu", torch.bfloat16):
        value = nst(student, teacher)
    assert torch.equal(value, nst(student, teacher))
