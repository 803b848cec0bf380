import math

import pytest
import torch

from kdexp.losses.ctkd import CTKD, ctkd
from kdexp.losses.kd import kd


def test_at_its_temperature_it_is_kd(logits, target):
    loss = CTKD()
    start = 1 + 20 / (1 + math.exp(-1))
    assert loss.learned_temperature == pytest.approx(start)
    torch.testing.assert_close(loss(*logits, target), kd(*logits, start), rtol=1e-6, atol=0)


def test_the_temperature_gets_the_true_gradient_and_so_does_the_student(logits):
    temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z, t: ctkd(z, logits[1][:3], t), (student, temperature))


@pytest.mark.parametrize(("epoch", "strength"), [(0, 0.0245), (4, 0.5), (9, 1.0), (99, 1.0)])
def test_its_parameter_climbs_with_the_strength_of_the_curriculum(logits, target, epoch, strength):
    # (1 - cos(pi e / 10)) / 2 for epochs e from 1 on: e = 1 gives 0.0245.
    loss = CTKD()
    loss.on_epoch(epoch)
    loss(*logits, target).backward()
    step = 1e-3
    raised, lowered = (kd(*logits, 1 + 20 / (1 + math.exp(-1 - s))).item() for s in (step, -step))
    slope = (raised - lowered) / (2 * step)
    assert loss.raw_temperature.grad.item() == pytest.approx(-strength * slope, rel=5e-3)


def test_an_optimizer_raises_the_loss_by_the_temperature_and_lowers_it_by_the_student(logits, target):
    student, teacher = logits[0].clone().requires_grad_(), logits[1]
    loss = CTKD()
    before = loss(student, teacher, target)
    before.backward()
    torch.optim.SGD(loss.parameters(), lr=0.1).step()
    assert loss(student, teacher, target) > before
    assert ctkd(student - 0.1 * student.grad, teacher, torch.tensor(15.62117)) < before


def test_its_parameter_is_saved():
    loss, other = CTKD(), CTKD()
    with torch.no_grad():
        loss.raw_temperature.fill_(-3.0)
    other.load_state_dict(loss.state_dict())
    assert other.learned_temperature == loss.learned_temperature < 2


@pytest.mark.parametrize(
    ("setting", "rule"),
    [({"t_start": 0}, "t_start must be > 0, got 0"), ({"t_span": -1}, "t_span must be >= 0, got -1"),
     ({"ramp_epochs": 0}, "ramp_epochs must be >= 1, got 0")],
)  # fmt: skip
def test_bad_settings_are_refused(setting, rule):
    with pytest.raises(ValueError, match=f"^loss.{rule}$"):
        CTKD(**setting)
