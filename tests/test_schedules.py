import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from kdexp.schedules import anneal, constant, cosine, multistep

CONF = Path(__file__).parents[1] / "conf"


def make_optimizer(lr=0.5):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler, steps):
    """The rate of each optimizer step."""
    seen = []
    for _ in range(steps):
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_annealing_goes_from_start_to_end(kind):
    assert anneal(8.0, 1.0, 0.0, kind) == 8
    assert anneal(8.0, 1.0, 1.0, kind) == 1
    assert anneal(8.0, 1.0, 0.5, kind) == pytest.approx(4.5)


def test_annealing_at_a_quarter():
    assert anneal(0.0, 1.0, 0.25, "linear") == 0.25
    assert anneal(0.0, 1.0, 0.25, "cosine") == pytest.approx(0.5 - math.sqrt(0.125))
    assert anneal(0.3, 1.0, 0.25, "constant") == 0.3


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="must be constant, linear or cosine, got steps"):
        anneal(0.0, 1.0, 0.5, "steps")


def test_constant_is_constant():
    assert rates(constant(make_optimizer(), 5), 5) == [0.5] * 5


def test_cosine_is_torchs():
    torchs = CosineAnnealingLR(make_optimizer(), T_max=20, eta_min=0.05)
    assert rates(cosine(make_optimizer(), 20, min_lr_ratio=0.1), 20) == pytest.approx(rates(torchs, 20))


def test_multistep_is_the_benchmarks():
    torchs = MultiStepLR(make_optimizer(), milestones=[150, 180, 210], gamma=0.1)
    assert rates(multistep(make_optimizer(), 240), 240) == pytest.approx(rates(torchs, 240))


@pytest.mark.parametrize("make", [constant, cosine, multistep])
def test_warmup_rises_evenly_from_above_zero_to_the_full_rate(make):
    seen = rates(make(make_optimizer(1.0), 40, warmup_ratio=0.1), 40)
    assert seen[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(seen) == 1.0


def test_cosine_after_a_warmup_still_ends_at_the_final_rate():
    scheduler = cosine(make_optimizer(1.0), 40, warmup_ratio=0.25, min_lr_ratio=0.2)
    rates(scheduler, 40)
    assert scheduler.get_last_lr() == pytest.approx([0.2])
    rates(scheduler, 3)  # an epoch that turns out longer than estimated
    assert scheduler.get_last_lr() == pytest.approx([0.2])


@pytest.mark.parametrize("make", [constant, cosine, multistep])
def test_a_training_of_one_step_has_the_full_rate(make):
    assert rates(make(make_optimizer(), 1, warmup_ratio=0.9), 1) == [0.5]


@pytest.mark.parametrize("make", [constant, cosine, multistep])
def test_a_restored_scheduler_continues_bit_for_bit(make):
    whole = rates(make(make_optimizer(), 30, warmup_ratio=0.2), 30)
    first = make(make_optimizer(), 30, warmup_ratio=0.2)
    rates(first, 13)
    second = make(make_optimizer(), 30, warmup_ratio=0.2)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert rates(second, 17) == whole[13:]


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (constant, {"warmup_ratio": 1.0}, r"scheduler.warmup_ratio must be in \[0, 1\), got 1.0"),
        (cosine, {"min_lr_ratio": -0.1}, r"scheduler.min_lr_ratio must be in \[0, 1\], got -0.1"),
        (multistep, {"milestone_fractions": [150]}, r"scheduler.milestone_fractions must be in \(0, 1\), got \[150\]"),
        (multistep, {"gamma": 0}, "scheduler.gamma must be > 0, got 0"),
    ],
)
def test_values_outside_their_range_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(make_optimizer(), 10, **settings)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml")))
def test_every_scheduler_yaml_makes_a_scheduler(name):
    make = instantiate(OmegaConf.load(CONF / "scheduler" / f"{name}.yaml"), _convert_="all")
    assert rates(make(make_optimizer(), 8), 8)[0] == 0.5


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml")))
def test_every_optimizer_yaml_lowers_a_loss(name):
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    make = instantiate(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"), _convert_="all")
    (parameter**2).sum().backward()
    make(p for p in [parameter]).step()
    assert abs(parameter.item()) < 1
