import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdexp.contracts import Outputs
from kdexp.feature_losses.mgd import MGD, mgd


def outputs(student, teacher, path="stage3"):
    return Outputs(None, {path: student}), Outputs(None, {path: teacher})


def test_without_a_mask_mgd_is_the_summed_squared_error_of_what_is_generated():
    student, teacher = torch.randn(2, 3, 4, 2, 5, generator=torch.Generator().manual_seed(0)).double().unbind()
    expected = np.sum((2 * student.numpy() + 1 - teacher.numpy()) ** 2) / 3
    np.testing.assert_allclose(mgd(student, teacher, lambda x: 2 * x + 1, mask_ratio=0.0), expected, rtol=1e-10)
    assert mgd(teacher, teacher, nn.Identity(), mask_ratio=0.0) == 0


@pytest.mark.parametrize("ratio", [0.15, 0.5])
def test_whole_channels_of_a_sample_are_masked_and_the_others_left_as_they_are(ratio):
    torch.manual_seed(0)
    seen = []
    mgd(torch.full((40, 50, 2, 2), 3.0), torch.zeros(40, 50, 2, 2), lambda x: seen.append(x) or x, mask_ratio=ratio)
    (masked,) = seen
    assert set(masked.unique().tolist()) == {0.0, 3.0}
    assert torch.equal(masked, masked[:, :, :1, :1].expand_as(masked))
    dropped = (masked[:, :, 0, 0] == 0).double()
    # 2000 draws: four standard deviations.
    assert dropped.mean().item() == pytest.approx(ratio, abs=4 * (ratio * (1 - ratio) / 2000) ** 0.5)
    assert dropped.mean(0).std() > 0
    assert dropped.mean(1).std() > 0


def test_the_mask_is_of_torchs_random_state():
    student, teacher = torch.rand(4, 30, 1, 1), torch.rand(4, 30, 1, 1)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(mgd(student, teacher, nn.Identity()).item())
    assert found[0] == found[1] != found[2]


def test_masked_channels_get_no_gradient_and_the_teacher_neither():
    student, teacher = (torch.rand(2, 8, 2, 2, requires_grad=True) for _ in range(2))
    torch.manual_seed(0)
    kept = torch.rand(2, 8) >= 0.5
    torch.manual_seed(0)
    mgd(student, teacher, nn.Identity(), mask_ratio=0.5).backward()
    expected = (student - teacher).detach() * kept[:, :, None, None]  # 2 * difference / 2 samples
    torch.testing.assert_close(student.grad, expected)
    assert teacher.grad is None


def test_the_module_connects_masks_and_generates(pair, batch):
    loss = MGD(pair, mask_ratio=0.0)
    assert loss.student_paths == loss.teacher_paths == ["stage3"]
    student, teacher = torch.randn(6, 16, 2, 2), torch.randn(6, 24, 2, 2)
    weights = dict(loss.named_parameters())
    assert {name: tuple(p.shape) for name, p in weights.items() if p.ndim > 1} == {
        "connector.convolution.weight": (24, 16, 1, 1),
        "generator.0.weight": (24, 24, 3, 3),
        "generator.2.weight": (24, 24, 3, 3),
    }
    maps = F.conv2d(student, weights["connector.convolution.weight"], weights["connector.convolution.bias"])
    maps = F.conv2d(maps, weights["generator.0.weight"], weights["generator.0.bias"], padding=1).clamp(min=0)
    maps = F.conv2d(maps, weights["generator.2.weight"], weights["generator.2.bias"], padding=1)
    expected = sum((a - b).square().sum() for a, b in zip(maps, teacher, strict=True)) / 6
    torch.testing.assert_close(loss(*outputs(student, teacher), batch), expected)


def test_equal_channels_need_no_connector(equal_pair):
    assert not list(MGD(equal_pair).connector.parameters())


def test_vectors_are_maps_of_one_position(vector_pair, batch):
    loss = MGD(vector_pair)
    value = loss(*outputs(torch.rand(1, 7), torch.rand(1, 9), "hidden"), batch)
    value.backward()
    assert value.isfinite()


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_bad_settings_are_refused(pair, ratio):
    with pytest.raises(ValueError, match=rf"^feature_loss.mgd.mask_ratio must be in \[0, 1\), got {ratio}$"):
        MGD(pair, mask_ratio=ratio)
