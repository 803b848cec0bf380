import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import power_divergence as cressie_read
from torch.distributions import Bernoulli, kl_divergence

from kdexp.losses.kd import kd
from kdexp.losses.power_divergence import PowerDivergence, power_divergence
from kdexp.losses.reverse_kl import reverse_kl

TEACHER = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
STUDENT = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("power", "expected"),
    [(-1, 0.092033), (-0.5, 0.088087), (0, 0.085123), (2 / 3, 0.082485), (1, 0.081667)],
)
def test_hand_computed_cases(power, expected):
    assert power_divergence(STUDENT, TEACHER, 1.0, power=power).item() == pytest.approx(expected, abs=5e-7)


def test_a_hand_computed_case_with_the_student_first():
    found = power_divergence(STUDENT, TEACHER, 1.0, power=2 / 3, direction="student_first")
    assert found.item() == pytest.approx(0.099111, abs=5e-7)


def test_a_hand_computed_gradient():
    student = STUDENT.clone().requires_grad_()
    power_divergence(student, TEACHER, 1.0, power=2 / 3).backward()
    np.testing.assert_allclose(student.grad[0], [-0.198120, 0.104920, 0.093200], atol=5e-7)


@pytest.mark.parametrize("direction", ["teacher_first", "student_first"])
@pytest.mark.parametrize("power", [-3, -1, -0.7, -0.5, 0, 1e-9, 2 / 3, 1, 2.5])
def test_it_is_half_of_scipys_statistic(logits, power, direction):
    q, p = (softmax(x.numpy() / 4, axis=1) for x in logits)
    first, second = (p, q) if direction == "teacher_first" else (q, p)
    expected = 16 * cressie_read(first, second, axis=1, lambda_=power).statistic.mean() / 2
    found = power_divergence(*logits, 4.0, power=power, direction=direction)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(PowerDivergence(4.0, power, direction)(*logits, None), found)


@pytest.mark.parametrize("power", [-3, -0.5, 0, 2 / 3, 1])
def test_the_gradient_is_that_of_the_closed_form(logits, power):
    student = logits[0].clone().requires_grad_()
    power_divergence(student, logits[1], 1.0, power=power).backward()
    q, p = (softmax(x.numpy(), axis=1) for x in logits)
    w = p * (p / q) ** power
    expected = (q * w.sum(1, keepdims=True) - w) / (power + 1) / len(q)
    np.testing.assert_allclose(student.grad, expected, atol=1e-9)


@pytest.mark.parametrize("power", [-1, 2 / 3])
def test_the_gradient_passes_a_finite_difference_check(logits, power):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: power_divergence(z, logits[1][:3], 2.0, power=power), student)


def test_the_limits_are_kl_in_both_directions_and_nothing_jumps_there(logits):
    student, teacher = (x.float() for x in logits)
    for limit, expected in ((0.0, kd(student, teacher, 2.0)), (-1.0, reverse_kl(student, teacher, 2.0))):
        torch.testing.assert_close(power_divergence(student, teacher, 2.0, power=limit), expected, rtol=1e-6, atol=0)
        for near in (1e-11, 1e-7, 1e-5):
            for sign in (1, -1):
                found = power_divergence(student, teacher, 2.0, power=limit + sign * near)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_the_other_direction_is_another_power(logits):
    exchanged = power_divergence(*logits, 2.0, power=0.4, direction="student_first")
    torch.testing.assert_close(exchanged, power_divergence(*logits, 2.0, power=-1.4))


def test_at_a_high_temperature_all_powers_are_kd(logits):
    for power in (-2.0, -0.5, 2 / 3, 3.0):
        torch.testing.assert_close(power_divergence(*logits, 1e4, power=power), kd(*logits, 1e4), rtol=1e-2, atol=0)


def test_sigmoid_tasks_average_over_labels(logits):
    student, teacher = (Bernoulli(logits=x) for x in logits)
    found = power_divergence(*logits, 1.0, power=0, kind="multilabel")
    torch.testing.assert_close(found, kl_divergence(teacher, student).mean())


@pytest.mark.parametrize("power", [-3.0, -0.3, 2 / 3, 3.0])
def test_a_student_that_is_sure_of_another_class_has_a_finite_gradient(power):
    student = torch.tensor([[1000.0, 0, 0]]).requires_grad_()
    loss = power_divergence(student, torch.tensor([[0.0, 1000, 0]]), 1.0, power=power)
    loss.backward()
    assert 1 < loss < float("inf")
    assert student.grad.isfinite().all()
    if power > 0:
        assert student.grad[0, 1] < 0 < student.grad[0, 0], "towards the teacher's class"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, r"^temperature must be > 0, got 0$"),
        ({"power": float("inf")}, r"^loss.power must be a finite number, got inf$"),
        ({"direction": "both"}, r"^loss.direction must be teacher_first or student_first, got both$"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PowerDivergence(**settings)
