import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdexp.robustness.attacks import Attack, Normalized, autoattack, in_eval_mode, log_cross_entropy, untargeted_loss

INDEX = torch.arange(64)
IMAGES = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
TARGET = INDEX % 3


def linear(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, outputs))


def curved(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3))


def fgsm(eps, **settings):
    return Attack("linf", eps, 1, eps, random_start=False, **settings)


def pgd(norm, eps, steps=20, **settings):
    return Attack(norm, eps, steps, eps / 4, **settings)


def attacked(attack, network, target=TARGET, kind="multiclass", images=IMAGES):
    return attack(untargeted_loss(network, target, kind), images, INDEX, seed=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_an_attack_leaves_of_a_linear_network_is_known_exactly(norm):
    """Two classes: right by a margin m, and an attack takes eps times the dual norm of the weights from it."""
    network, target = linear(2), INDEX % 2
    weights = network[1].weight.detach()
    across = weights[0] - weights[1]
    logits = network(IMAGES).detach()
    margin = (logits[:, 0] - logits[:, 1]) * (1 - 2 * target)
    dual = across.abs().sum() if norm == "linf" else across.norm()
    eps = float(margin.clamp(min=0).median() / dual) + 1e-4  # about half of what is right falls
    robust = (margin > eps * dual).float().mean()
    assert 0.1 < robust < 0.9
    attacks = [pgd(norm, eps, 40, bounds=None)] + ([fgsm(eps, bounds=None)] if norm == "linf" else [])
    for attack in attacks:
        accuracy = (network(attacked(attack, network, target)).argmax(1) == target).float().mean()
        assert accuracy == robust


def test_a_binary_network_is_attacked_through_its_one_logit():
    network, target = linear(1), INDEX % 2
    margin = network(IMAGES).detach()[:, 0] * (2 * target - 1)
    dual = network[1].weight.detach().abs().sum()
    eps = float(margin.abs().median() / dual)
    moved = network(attacked(fgsm(eps, bounds=None), network, target, "binary")).detach()[:, 0]
    torch.testing.assert_close(moved * (2 * target - 1), margin - eps * dual, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_whole_of_eps_is_used_and_no_more_and_pixels_stay_pixels(norm):
    for images, bounds in ((IMAGES, (0.0, 1.0)), ((IMAGES > 0.5).float(), (0.0, 1.0))):
        found = attacked(pgd(norm, 0.1, bounds=bounds), curved(), images=images)
        delta = (found - images).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert size.max() <= 0.1 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        if images is IMAGES:
            torch.testing.assert_close(size, torch.full_like(size, 0.1), atol=1e-5, rtol=0)


def test_each_step_raises_the_objective_and_more_steps_and_eps_more():
    network = curved().requires_grad_(False)
    objective = untargeted_loss(network, TARGET, "multiclass")
    losses = [float(objective(IMAGES))]
    losses += [float(objective(attacked(pgd("linf", eps), network))) for eps in (0.05, 0.1, 0.2)]
    assert losses == sorted(losses)
    assert float(objective(attacked(pgd("linf", 0.2), network))) >= float(objective(attacked(fgsm(0.2), network)))


def test_a_step_by_hand():
    network = curved()
    x = IMAGES.clone().requires_grad_()
    F.cross_entropy(network(x), TARGET, reduction="sum").backward()
    expected = (IMAGES + 0.03 * x.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(attacked(fgsm(0.03), network), expected)
    step = Attack("l2", 0.2, 1, 0.1, random_start=False)
    unit = x.grad / x.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(attacked(step, network), IMAGES + 0.1 * unit, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_the_objective_is_the_logarithm_of_cross_entropy(kind):
    logits = 8 * torch.randn(64, {"multiclass": 3, "binary": 1, "multilabel": 4}[kind])
    if kind == "multiclass":
        target, expected = TARGET, F.cross_entropy(logits.double(), TARGET, reduction="none")
    else:
        target = torch.randint(2, logits.shape)
        each = F.binary_cross_entropy_with_logits(logits.double(), target.double(), reduction="none")
        target, expected = target.squeeze(1) if kind == "binary" else target.float(), each.sum(1)
    found = log_cross_entropy(logits, target, kind)
    np.testing.assert_allclose(found, expected.log(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_certainty_does_not_stop_an_attack(kind):
    """Of a linear network that is thousands of times surer, the same inputs are moved as far."""
    network, target = linear(2 if kind == "multiclass" else 1), INDEX % 2
    for one in (network, nn.Sequential(network, Scaled(5000.0))):
        moved = attacked(fgsm(0.05), one, target, kind)
        torch.testing.assert_close((moved - IMAGES).abs(), torch.full_like(IMAGES, 0.05), atol=1e-6, rtol=0)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_an_unbounded_attack_leaves_nothing():
    network = linear()
    found = attacked(Attack("linf", 1.0, 50, 0.1), network)
    right = (network(found).argmax(1) == TARGET).float().mean()
    assert right == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_random_start_is_a_function_of_seed_epoch_and_sample(norm):
    attack = Attack(norm, 0.2, 1, 1e-9, bounds=None)

    def start(images=IMAGES, index=INDEX, **place):
        return attack(lambda x: x.sum(), images, index, **place) - images

    whole = start(seed=1, epoch=2)
    some = torch.tensor([9, 3])
    torch.testing.assert_close(start(IMAGES[some], INDEX[some], seed=1, epoch=2), whole[some], atol=1e-7, rtol=0)
    assert not torch.allclose(start(seed=1, epoch=3), whole)
    sizes = whole.abs().flatten() if norm == "linf" else whole.flatten(1).norm(dim=1)
    assert sizes.max() <= 0.2 + 1e-6
    assert sizes.max() > 0.19
    # Of a uniform point in the ball: half of eps for each value, or 16 / 17 of the radius in 16 dimensions.
    assert sizes.mean() == pytest.approx(0.1 if norm == "linf" else 0.2 * 16 / 17, rel=0.04 if norm == "linf" else 0.01)


def test_tiny_gradients_still_point_somewhere():
    found = Attack("l2", 0.2, 1, 0.2, random_start=False)(lambda x: 1e-30 * x.sum(), IMAGES, INDEX, seed=0)
    torch.testing.assert_close((found - IMAGES).flatten(1).norm(dim=1), torch.full((64,), 0.2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("linf", 1.5, 10, 0.1), r"^eps of an attack must be in \(0, 1\], the range of a pixel, got 1.5$"),
        (("linf", 0.0, 10, 0.1), r"^eps of an attack must be in \(0, 1\].*, got 0$"),
        (("l2", -1.0, 10, 0.1), r"^eps of an attack must be > 0, got -1$"),
        # The two exchanged, as a published baseline had them.
        (
            ("linf", 2 / 255, 10, 8 / 255),
            r"^abs_stepsize of an attack must be in \(0, eps=0.00784314\], got 0.0313725$",
        ),
        (("linf", 0.1, 0, 0.1), r"^steps of an attack must be at least 1, got 0$"),
        (("l1", 0.1, 1, 0.1), r"^norm of an attack must be linf or l2, got l1$"),
    ],
)
def test_an_attack_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Attack(*settings)


def test_an_attack_moves_no_statistics_and_leaves_the_modes():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with in_eval_mode(network):
        attacked(pgd("linf", 0.1, 2), network)
    assert [module.training for module in network] == [True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_normalisation_is_a_part_of_the_network():
    network = linear()
    wrapped = Normalized(network, [0.3], [0.2])
    torch.testing.assert_close(wrapped(IMAGES), network((IMAGES - 0.3) / 0.2))
    assert list(wrapped.state_dict()) == [f"network.{name}" for name in network.state_dict()]


def test_autoattack_finds_at_least_what_pgd_finds_and_says_what_it_doubts():
    pytest.importorskip("pyautoattack", reason="the extra `attacks` is not installed")
    network = curved()
    target = network(IMAGES).argmax(1)
    for norm, eps in (("linf", 0.02), ("l2", 0.08)):
        found, flags = autoattack(network, IMAGES, target, norm=norm, eps=eps, seed=0, attacks=["apgd-ce", "apgd-dlr"])
        delta = (found - IMAGES).flatten(1)
        assert (delta.abs().amax() if norm == "linf" else delta.norm(dim=1).max()) <= eps + 1e-6
        robust = (network(found).argmax(1) == target).float().mean()
        assert robust <= (network(attacked(pgd(norm, eps), network, target)).argmax(1) == target).float().mean()
        assert 0 < robust < 1
        assert not [flag for flag in flags if "probability" in flag]
    _, flags = autoattack(lambda x: network(x).softmax(1), IMAGES, target, norm="linf", eps=0.02, seed=0,
                          attacks=["apgd-ce"])  # fmt: skip
    assert any("probability distribution" in flag for flag in flags)
    assert math.isfinite(float(found.sum()))
