"""What every soft loss in conf/loss must obey; a new yaml is tested without an edit here."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

LOSSES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))


@pytest.fixture(params=LOSSES)
def loss(request):
    own = OmegaConf.load(Path(__file__).parents[2] / "conf" / "loss" / f"{request.param}.yaml")
    config = OmegaConf.create(
        {"temperature": 4.0, "alpha": 0.1, "dataset": {"task": "multiclass", "num_classes": 7}, "loss": own}
    )
    return instantiate(config.loss)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 12, 7, generator=generator).unbind()
    return student.requires_grad_(), teacher.requires_grad_(), torch.randint(0, 7, (12,), generator=generator)


def test_is_a_finite_scalar(loss, batch):
    value = loss(*batch)
    assert value.shape == ()
    assert value.isfinite()


def test_gradient_reaches_the_student_and_not_the_teacher(loss, batch):
    student, teacher, _ = batch
    loss(*batch).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_give_finite_values_and_gradients(loss, batch, scale):
    _, teacher, target = batch
    student = (teacher.detach().flip(0).sign() * scale).requires_grad_()
    value = loss(student, teacher.detach().sign() * scale, target)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_bf16_autocast_computes_in_float32(loss, batch):
    student, teacher, target = batch
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student.bfloat16(), teacher.bfloat16(), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.bfloat16().float(), teacher.bfloat16().float(), target))


def test_order_of_the_batch_does_not_matter(loss, batch):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(*(part[order] for part in batch)), loss(*batch))


def test_a_small_step_down_the_gradient_lowers_it(loss, batch):
    student, teacher, target = batch
    before = loss(*batch)
    before.backward()
    step = student.detach() - 1e-2 * student.grad / student.grad.norm()
    assert loss(step, teacher, target) < before


def test_is_lower_for_the_teachers_own_logits_than_for_others(loss, batch):
    _, teacher, target = batch
    assert loss(teacher.detach(), teacher, target) < loss(*batch)
