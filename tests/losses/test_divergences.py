import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from torch.distributions import Bernoulli, kl_divergence

from kdexp.losses.jsd import JSD, jsd
from kdexp.losses.kd import kd
from kdexp.losses.kl import kl
from kdexp.losses.mse import MSE, mse
from kdexp.losses.reverse_kl import ReverseKL, reverse_kl
from kdexp.losses.rslad import RSLAD, rslad


def test_kl_is_one_value_for_each_distribution(logits):
    q, p = (softmax(x.numpy(), axis=1) for x in logits)
    found = kl(logits[1].log_softmax(1), logits[0].log_softmax(1))
    np.testing.assert_allclose(found, rel_entr(p, q).sum(1), rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_jsd_is_scipys_distance_squared(logits, temperature):
    q, p = (softmax(x.numpy() / temperature, axis=1) for x in logits)
    expected = temperature**2 * (jensenshannon(p, q, axis=1) ** 2).mean()
    np.testing.assert_allclose(jsd(*logits, temperature), expected, rtol=1e-9)
    np.testing.assert_allclose(JSD(temperature)(*logits, None), expected, rtol=1e-9)


def test_jsd_is_symmetric_and_at_most_log_2():
    certain = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    assert jsd(certain, certain.flip(0), 1.0).item() == pytest.approx(np.log(2))
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8, 5, generator=generator).unbind()
    torch.testing.assert_close(jsd(a, b, 2.0), jsd(b, a, 2.0))


def test_jsd_is_a_quarter_of_kl_near_agreement(logits):
    near = logits[1] + 1e-3 * logits[0]
    assert (jsd(near, logits[1], 1.0) / kd(near, logits[1], 1.0)).item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_reverse_kl_has_the_student_first(logits, temperature):
    q, p = (softmax(x.numpy() / temperature, axis=1) for x in logits)
    expected = temperature**2 * rel_entr(q, p).sum(1).mean()
    np.testing.assert_allclose(reverse_kl(*logits, temperature), expected, rtol=1e-9)
    np.testing.assert_allclose(ReverseKL(temperature)(*logits, None), expected, rtol=1e-9)


def test_sigmoid_tasks_average_over_labels(logits):
    expected = kl_divergence(Bernoulli(logits=logits[0]), Bernoulli(logits=logits[1])).mean()
    torch.testing.assert_close(reverse_kl(*logits, 1.0, kind="multilabel"), expected)


@pytest.mark.parametrize("loss", [jsd, reverse_kl])
def test_gradients_pass_a_finite_difference_check(logits, loss):
    student = logits[0][:3].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, logits[1][:3], 2.0), student)


def test_mse_is_the_mean_over_all_logits(logits):
    np.testing.assert_allclose(mse(*logits), ((logits[0] - logits[1]).numpy() ** 2).mean())
    np.testing.assert_allclose(MSE()(*logits, None), ((logits[0] - logits[1]).numpy() ** 2).mean())


def test_kd_tends_to_half_of_mse_for_high_temperatures_and_centred_logits(logits):
    centred = [x - x.mean(1, keepdim=True) for x in logits]
    torch.testing.assert_close(kd(*centred, 1e4), mse(*centred) / 2, rtol=1e-3, atol=0)


def test_rslad_is_five_sixths_attacked_and_one_sixth_clean(logits):
    clean, teacher = logits
    attacked = clean.flip(1)
    q_attacked, q, p = (softmax(x.numpy(), axis=1) for x in (attacked, clean, teacher))
    expected = (5 * rel_entr(p, q_attacked).sum(1).mean() + rel_entr(p, q).sum(1).mean()) / 6
    np.testing.assert_allclose(rslad(attacked, clean, teacher), expected, rtol=1e-9)
    np.testing.assert_allclose(RSLAD()(clean, teacher, None), rel_entr(p, q).sum(1).mean(), rtol=1e-9)


@pytest.mark.parametrize(("loss", "module"), [(jsd, JSD), (reverse_kl, ReverseKL)])
def test_a_temperature_that_is_not_positive_is_refused(logits, loss, module):
    with pytest.raises(ValueError, match=r"^temperature must be > 0, got 0$"):
        module(temperature=0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        loss(*logits, 0)
