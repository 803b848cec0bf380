import numpy as np
import pytest
import torch
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.fsp import FSP, fsp
from kdexp.feature_losses.maps import Regressor

CHANNELS = (2, 3, 4)


def draw(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5, channels, size, size) for channels, size in zip(CHANNELS, sizes, strict=True)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def flow(first, second):
    """The paper's matrix of one sample, entry by entry; equal sizes."""
    height, width = first.shape[1:]
    return np.array(
        [
            [sum(a[h, w] * b[h, w] for h in range(height) for w in range(width)) / (height * width) for b in second]
            for a in first
        ]
    )


def test_fsp_is_the_squared_error_between_flows():
    student, teacher = draw((3, 3, 3)), draw((3, 3, 3), seed=1)
    expected = 0
    for stage in range(2):
        errors = [
            flow(student[stage][n].numpy(), student[stage + 1][n].numpy())
            - flow(teacher[stage][n].numpy(), teacher[stage + 1][n].numpy())
            for n in range(5)
        ]
        expected += np.mean(np.square(errors))
    np.testing.assert_allclose(fsp(student, teacher), expected, rtol=1e-10)


def test_a_larger_stage_is_averaged_to_the_next_and_the_networks_may_differ_in_size():
    student, teacher = draw((4, 2, 1)), draw((3, 3, 3), seed=1)
    smaller = [
        maps.reshape(5, channels, size // 2, 2, size // 2, 2).mean((3, 5))
        for maps, channels, size in zip(student[:2], CHANNELS[:2], (4, 2), strict=True)
    ]
    terms = [
        fsp([smaller[0], student[1]], teacher[:2]),
        fsp([smaller[1], student[2]], teacher[1:]),
    ]
    torch.testing.assert_close(fsp(student, teacher), terms[0] + terms[1])
    assert fsp(student, student) == 0


def test_the_flow_does_not_depend_on_where_things_are():
    maps = draw((3, 3, 3))
    assert fsp(maps, [x.flip(2, 3) for x in maps]).item() == pytest.approx(0, abs=1e-25)
    assert fsp(maps, [maps[0].flip(2, 3), *maps[1:]]) > 1e-3


def test_gradient_passes_a_finite_difference_check_and_the_teacher_gets_none():
    student = [x[:2].requires_grad_() for x in draw((4, 2, 2))]
    teacher = [x[:2].requires_grad_() for x in draw((4, 2, 2), seed=1)]
    assert torch.autograd.gradcheck(lambda *maps: fsp(maps, teacher), student)
    fsp(student, teacher).backward()
    assert all(x.grad is None for x in teacher)


def test_the_module_connects_stages_of_other_channels(pair, batch):
    loss = FSP(pair)
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
    torch.testing.assert_close(found, fsp(connected, list(teacher.values())), rtol=1e-4, atol=1e-6)


def test_equal_channels_need_no_connector(equal_pair, batch):
    loss = FSP(equal_pair)
    assert all(isinstance(c, nn.Identity) for c in loss.connectors)
    features = {"stage1": torch.rand(6, 4, 8, 8), "stage2": torch.rand(6, 8, 4, 4), "stage3": torch.rand(6, 16, 2, 2)}
    assert loss(Outputs(None, features), Outputs(None, features), batch) == 0


def test_a_single_stage_is_refused(vector_pair):
    with pytest.raises(ValueError, match=r"^feature_loss=fsp needs at least 2 stages in both networks, got 1$"):
        FSP(vector_pair)


def test_autocast_changes_nothing():
    student, teacher = ([x.float() for x in draw((4, 2, 2), seed)] for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        value = fsp(student, teacher)
    assert torch.equal(value, fsp(student, teacher))
