import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import rel_entr, softmax
from scipy.stats import entropy as shannon

from kdexp.losses.entropy_kd import EntropyKD, entropy_kd, entropy_temperature
from kdexp.losses.kd import kd


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_every_label_has_the_set_entropy_whatever_the_size_of_its_logits(fraction):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 10, generator=generator) * torch.logspace(-3, 4, 200).unsqueeze(1)
    temperature = entropy_temperature(logits, fraction)
    assert temperature.shape == (200, 1)
    found = shannon(softmax((logits / temperature).double().numpy(), axis=1), axis=1)
    np.testing.assert_allclose(found, fraction * np.log(10), atol=1e-5)


def test_it_is_kd_at_the_temperatures_that_a_root_finder_finds(logits):
    student, teacher = (x.numpy() for x in logits)
    expected = []
    for z_s, z_t in zip(student, teacher, strict=True):
        t = brentq(lambda t, z=z_t: shannon(softmax(z / t)) - 0.3 * np.log(6), 1e-3, 1e3)
        expected.append(t**2 * rel_entr(softmax(z_t / t), softmax(z_s / t)).sum())
    np.testing.assert_allclose(entropy_kd(*logits, entropy=0.3), np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(EntropyKD(0.3)(*logits, None), np.mean(expected), rtol=1e-5)


def test_a_teacher_that_is_twice_as_sure_is_softened_twice_as_much(logits):
    once, twice = (entropy_temperature(scale * logits[1], 0.5) for scale in (1, 2))
    torch.testing.assert_close(twice, 2 * once)
    torch.testing.assert_close(entropy_kd(2 * logits[0], 2 * logits[1]), 4 * entropy_kd(*logits), rtol=1e-5, atol=0)


def test_the_gradient_is_kds_at_these_temperatures_and_none_reaches_the_teacher(logits):
    student, teacher = (x[:1].clone().requires_grad_() for x in logits)
    entropy_kd(student, teacher).backward()
    assert teacher.grad is None
    same = student.detach().requires_grad_()
    kd(same, teacher, entropy_temperature(teacher, 0.5).item()).backward()
    torch.testing.assert_close(student.grad, same.grad)


def test_a_label_of_a_sigmoid_task_has_a_temperature_of_its_own(logits):
    teacher = logits[1]
    p = torch.sigmoid(teacher / (teacher.abs() / np.log(9)))  # 0.9 or 0.1: an entropy of 0.469 ln 2
    fraction = float(-(p * p.log() + (1 - p) * (1 - p).log()).mean() / np.log(2))
    expected = torch.stack([kd(z[None, None], t[None, None], float(t.abs() / np.log(9)), kind="binary")
                            for z, t in zip(logits[0].flatten(), teacher.flatten(), strict=True)]).mean()  # fmt: skip
    torch.testing.assert_close(entropy_kd(*logits, entropy=fraction, kind="multilabel"), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("teacher", [[0.0, 0, 0, 0], [5.0, 5, 1, 0], [3e4, -3e4, 0, 1]])
def test_constant_tied_and_extreme_logits_give_finite_values(teacher):
    student = torch.tensor([[1.0, 2, 3, 4]]).requires_grad_()
    loss = entropy_kd(student, torch.tensor([teacher]), entropy=0.1)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    if teacher[0] == teacher[1]:
        assert loss < 1e-3, "no temperature has so little entropy"


@pytest.mark.parametrize("entropy", [0, 0.009, 0.991, 1.5, float("nan")])
def test_an_entropy_out_of_range_is_refused(logits, entropy):
    rule = rf"must be in \[0.01, 0.99\], a fraction of ln C, got {entropy}$"
    with pytest.raises(ValueError, match=rf"^loss.entropy {rule}"):
        EntropyKD(entropy)
    with pytest.raises(ValueError, match=rf"^entropy {rule}"):
        entropy_kd(*logits, entropy=entropy)
