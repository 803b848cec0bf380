from dataclasses import replace

import numpy as np
import pytest
import torch

from kdexp.contracts import Outputs
from kdexp.feature_losses.fitnet import FitNet, fitnet


def with_stages(side, *stages):
    return replace(side, layers=replace(side.layers, stages=stages))


def outputs(path, *shape):
    return Outputs(None, {path: torch.randn(*shape, generator=torch.Generator().manual_seed(len(path) + shape[1]))})


def test_fitnet_is_the_mean_squared_error():
    regressed, hint = torch.randn(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0)).double().unbind()
    expected = sum((a - b) ** 2 for a, b in zip(regressed.flatten().tolist(), hint.flatten().tolist(), strict=True))
    assert fitnet(regressed, hint).item() == pytest.approx(expected / 120)
    assert fitnet(hint, hint) == 0


def test_the_teacher_gets_no_gradient():
    regressed, hint = (torch.rand(2, 3, 2, 2, requires_grad=True) for _ in range(2))
    fitnet(regressed, hint).backward()
    torch.testing.assert_close(regressed.grad, 2 * (regressed - hint).detach() / 24)
    assert hint.grad is None


def test_the_module_regresses_the_middle_stage_by_a_matrix_at_each_position(pair, batch):
    loss = FitNet(pair)
    assert loss.student_paths == loss.teacher_paths == ["stage2"]
    student, teacher = outputs("stage2", 6, 8, 4, 4), outputs("stage2", 6, 12, 4, 4)
    weight, bias = (p.detach().numpy() for p in loss.regressor.parameters())
    maps, hint = student.features["stage2"].numpy(), teacher.features["stage2"].numpy()
    regressed = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], maps) + bias[None, :, None, None]
    expected = np.square(regressed - hint).mean()
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_middle_is_that_of_the_stages_both_networks_have(pair):
    pair = replace(pair, student=with_stages(pair.student, "stage2", "stage3"))
    loss = FitNet(pair)
    assert (loss.student_paths, loss.teacher_paths) == (["stage3"], ["stage3"])
    loss = FitNet(pair, stage=0)
    assert (loss.student_paths, loss.teacher_paths) == (["stage2"], ["stage2"])


def test_maps_of_different_sizes_are_brought_to_the_hints(pair, batch):
    pair = replace(pair, student=with_stages(pair.student, "stage1"), teacher=with_stages(pair.teacher, "stage2"))
    loss = FitNet(pair)
    student, teacher = outputs("stage1", 6, 4, 8, 8), outputs("stage2", 6, 12, 4, 4)
    blocks = student.features["stage1"].numpy().reshape(6, 4, 4, 2, 4, 2).mean((3, 5))
    weight, bias = (p.detach().numpy() for p in loss.regressor.parameters())
    regressed = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], blocks) + bias[None, :, None, None]
    expected = np.square(regressed - teacher.features["stage2"].numpy()).mean()
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_regressor_can_reach_a_hint_below_zero(equal_pair, batch):
    loss = FitNet(equal_pair)
    student, teacher = outputs("stage2", 6, 8, 4, 4), outputs("stage2", 6, 8, 4, 4)
    teacher = Outputs(None, {"stage2": -teacher.features["stage2"]})
    with torch.no_grad():
        loss.regressor.convolution.weight.copy_(-torch.eye(8)[:, :, None, None])
        loss.regressor.convolution.bias.zero_()
    assert loss(student, teacher, batch).item() == pytest.approx(0, abs=1e-10)


def test_vectors_are_maps_of_one_position(vector_pair, batch):
    loss = FitNet(vector_pair)
    student, teacher = outputs("hidden", 6, 7), outputs("hidden", 6, 9)
    weight, bias = (p.detach() for p in loss.regressor.parameters())
    regressed = student.features["hidden"] @ weight[:, :, 0, 0].T + bias
    expected = (regressed - teacher.features["hidden"]).square().mean().item()
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stage", [-1, 3])
def test_a_stage_that_is_not_there_is_refused(pair, stage):
    with pytest.raises(ValueError, match=rf"^feature_loss.fitnet.stage must be from 0 to 2, got {stage}$"):
        FitNet(pair, stage=stage)
