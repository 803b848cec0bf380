import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, rel_entr, softmax
from torch.distributions import Bernoulli, Categorical, kl_divergence

from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.kd import KD, kd


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(16, 6, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_kd_is_the_kl_divergence_from_student_to_teacher_times_t_squared(logits, temperature):
    student, teacher = logits
    expected = kl_divergence(Categorical(logits=teacher / temperature), Categorical(logits=student / temperature))
    torch.testing.assert_close(kd(student, teacher, temperature), temperature**2 * expected.mean())
    p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
    unscaled = kd(student, teacher, temperature, scale_by_temperature=False)
    np.testing.assert_allclose(unscaled, rel_entr(p, q).sum(1).mean(), rtol=1e-9)


def test_the_articles_worked_example():
    # Its two "true" distributions are the teacher's probabilities, its values are sums over the two samples, and its
    # last value is alpha * (cross entropy) + (1 - alpha) * (KL) with alpha = 0.5 and T = 1.
    teacher = torch.tensor([[0.8, 0.2], [0.2, 0.8]], dtype=torch.float64)
    student = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    hard = cross_entropy(student.log(), teacher, kind="multiclass")
    soft = kd(student.log(), teacher.log(), 1.0)
    assert 2 * hard.item() == pytest.approx(1.089611, abs=5e-7)
    assert 2 * soft.item() == pytest.approx(0.088806, abs=5e-7)
    assert soft.item() == pytest.approx(0.044403, abs=5e-7)
    assert 2 * (0.5 * hard + 0.5 * soft).item() == pytest.approx(0.589208, abs=5e-7)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_is_the_difference_of_the_softened_probabilities(logits, temperature):
    student, teacher = logits
    student.requires_grad_()
    kd(student, teacher, temperature).backward()
    q, p = softmax(student.detach().numpy() / temperature, axis=1), softmax(teacher.numpy() / temperature, axis=1)
    np.testing.assert_allclose(student.grad, (q - p) * temperature / len(student), atol=1e-12)


def test_gradient_passes_a_finite_difference_check(logits):
    student, teacher = (x[:3] for x in logits)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: kd(z, teacher, 2.0), student)
    assert torch.autograd.gradcheck(lambda z: kd(z, teacher, 2.0, kind="multilabel"), student)


def test_t_squared_keeps_the_gradient_when_t_is_large(logits):
    # For T >> |z| the scaled gradient tends to (z_s - z_t, both centred) / (N * C): equation 4 of the paper.
    student, teacher = logits
    norms = {}
    for temperature in (1e2, 1e4):
        z = student.clone().requires_grad_()
        kd(z, teacher, temperature).backward()
        norms[temperature] = z.grad.norm().item()
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert norms[1e4] == pytest.approx(difference.norm().item() / student.numel(), rel=1e-3)
    assert norms[1e2] / norms[1e4] == pytest.approx(1, rel=0.05)


def test_without_t_squared_the_gradient_shrinks_by_it(logits):
    student, teacher = logits
    gradients = []
    for scale in (True, False):
        z = student.clone().requires_grad_()
        kd(z, teacher, 4.0, scale_by_temperature=scale).backward()
        gradients.append(z.grad)
    torch.testing.assert_close(gradients[0], 16 * gradients[1])


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_sigmoid_tasks_compare_each_label_as_a_bernoulli(logits, kind):
    student, teacher = (x[:, :1] if kind == "binary" else x for x in logits)
    expected = kl_divergence(Bernoulli(logits=teacher / 3), Bernoulli(logits=student / 3))
    torch.testing.assert_close(kd(student, teacher, 3.0, kind=kind), 9 * expected.mean())


def test_hard_and_soft_term_weigh_labels_alike(logits):
    # With the teacher's probabilities as labels, cross entropy and KL differ by the teacher's entropy alone.
    student, teacher = logits
    for kind, p in (("multiclass", softmax(teacher.numpy(), axis=1)), ("multilabel", expit(teacher.numpy()))):
        gradients = []
        for loss in (
            lambda z, p=p, kind=kind: cross_entropy(z, torch.from_numpy(p), kind=kind),
            lambda z, kind=kind: kd(z, teacher, 1.0, kind=kind),
        ):
            z = student.clone().requires_grad_()
            loss(z).backward()
            gradients.append(z.grad)
        torch.testing.assert_close(*gradients)


def test_dense_logits_are_averaged_over_positions():
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 2, 5, 3, 4, generator=generator, dtype=torch.float64).unbind()
    one_by_one = [kd(student[:, :, h, w], teacher[:, :, h, w], 2.0) for h in range(3) for w in range(4)]
    torch.testing.assert_close(kd(student, teacher, 2.0), torch.stack(one_by_one).mean())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_before_anything_is_computed(logits, dtype):
    student, teacher = (x.to(dtype) for x in logits)
    with torch.autocast("cpu", dtype):
        loss = kd(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, kd(student.float(), teacher.float(), 4.0))


# One of two softmax distributions is wrong by a gap of 2e4; two of four sigmoids are by 1e4.
@pytest.mark.parametrize(("kind", "expected"), [("multiclass", 2e4 / 2), ("multilabel", 1e4 * 2 / 4)])
def test_probabilities_of_zero_give_finite_losses_and_gradients(kind, expected):
    student = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = kd(student, torch.tensor([[-1e4, 1e4], [-1e4, 1e4]]), 1.0, kind=kind)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert student.grad.isfinite().all()


def test_equal_logits_give_zero_and_no_gradient(logits):
    student = logits[0].clone().requires_grad_()
    loss = kd(student, logits[0], 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_the_teacher_gets_no_gradient(logits):
    student, teacher = (x.clone().requires_grad_() for x in logits)
    kd(student, teacher, 2.0).backward()
    assert teacher.grad is None


def test_a_schedule_may_set_the_temperature_of_the_module(logits):
    loss = KD(temperature=1.0)
    loss.temperature = 4.0
    assert torch.equal(loss(*logits, torch.zeros(16)), kd(*logits, 4.0))


def test_the_articles_literal_formula_is_one_setting(logits):
    literal = KD(temperature=4.0, scale_by_temperature=False)(*logits, torch.zeros(16))
    student, teacher = logits
    expected = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean")
    torch.testing.assert_close(literal, expected)


@pytest.mark.parametrize("temperature", [0, -1])
def test_a_temperature_that_is_not_positive_is_refused(logits, temperature):
    with pytest.raises(ValueError, match=rf"^temperature must be > 0, got {temperature}$"):
        KD(temperature=temperature)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        kd(*logits, temperature)


def test_logits_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^teacher_logits must have .* N = 2, C = 3 of student_logits, got \(2, 4\)$"):
        kd(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
