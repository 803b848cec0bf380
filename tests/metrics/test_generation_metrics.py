"""Metrics of VAEs against what is known in closed form of a linear decoder with normal pixels."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal
from torchmetrics.image import PeakSignalNoiseRatio

from kdexp.contracts import Batch
from kdexp.losses.vae import PixelDecoder, VAEOutputs
from kdexp.metrics.generation import GenerationMetrics, importance_weighted

P, Z, SIGMA = 6, 2, 0.4


class Linear(nn.Module):
    """x = W z + b + noise, with orthogonal columns in W: then the posterior is known, and its covariance diagonal."""

    def __init__(self, shift=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        columns, _ = torch.linalg.qr(torch.randn(P, Z, generator=generator))
        self.weight, self.bias = columns * torch.tensor([1.5, 0.7]), torch.randn(P, generator=generator)
        self.precision = 1 + (self.weight**2).sum(0) / SIGMA**2
        self.shift, self.generator = shift, torch.Generator().manual_seed(1)

    def decode(self, z):
        return z @ self.weight.T + self.bias

    def forward(self, x):
        mu = ((x.flatten(1) - self.bias) @ self.weight) / SIGMA**2 / self.precision + self.shift
        logvar = -self.precision.log().expand_as(mu)
        z = mu + torch.randn(mu.shape, generator=self.generator) * (logvar / 2).exp()
        return torch.cat((self.decode(z), mu, logvar, z), 1)

    def marginal(self, x):
        covariance = self.weight @ self.weight.T + SIGMA**2 * torch.eye(P)
        return MultivariateNormal(self.bias, covariance).log_prob(x.flatten(1))


def images(n, seed=3):
    return torch.randn(n, 1, 2, 3, generator=torch.Generator().manual_seed(seed))


def test_at_the_exact_posterior_the_bound_is_the_marginal_likelihood():
    network, x = Linear(), images(2).repeat(20_000, 1, 1, 1)
    metrics = GenerationMetrics(Z, PixelDecoder(SIGMA))
    for part in x.split(10_000):
        metrics.update(network(part), part)
    found = metrics.compute()
    assert found["elbo"] == pytest.approx(float(network.marginal(x).mean()), abs=0.03)
    assert found["neg_elbo"] == -found["elbo"] == found["distortion"] + found["rate"]


@pytest.mark.parametrize("samples", [1, 7])
def test_at_the_exact_posterior_every_weight_is_the_marginal_likelihood(samples):
    network, x = Linear(), images(10)
    batches = [Batch(part, part) for part in x.split(4)]
    found = importance_weighted(network, batches, Z, PixelDecoder(SIGMA), samples)
    assert found == pytest.approx(float(network.marginal(x).mean()), rel=1e-5)


def test_elsewhere_more_samples_come_closer_to_it_from_below():
    network, x = Linear(shift=0.5), images(400)
    few, many = (importance_weighted(network, [Batch(x, x)], Z, PixelDecoder(SIGMA), samples) for samples in (1, 200))
    exact = float(network.marginal(x).mean())
    assert few < many - 0.5 < many < exact + 0.01
    assert many == pytest.approx(exact, abs=0.1)


def test_active_units_and_psnr():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.0, 0.05, 0.2, 1.0])  # standard deviations: the limit is 0.1
    mu = torch.randn(500, 4, generator=generator) * spread + torch.tensor([5.0, 0, 0, 3.0])
    decoded, target = torch.randn(2, 500, P, generator=generator).unbind()
    target = target.sigmoid().view(500, 1, 2, 3)
    given = torch.cat((decoded, mu, torch.zeros_like(mu), mu), 1)
    metrics = GenerationMetrics(4, PixelDecoder())
    for part in range(5):
        metrics.update(given[part::5], target[part::5])
    found = metrics.compute()
    assert found["active_units"] == 2
    expected = PeakSignalNoiseRatio(data_range=1.0)(decoded.sigmoid(), target.flatten(1))
    assert found["psnr"] == pytest.approx(float(expected), rel=1e-5)
    assert "loss" not in found


def test_the_distance_to_the_teacher_is_a_mean_over_samples_and_a_reset_forgets():
    given, taught, target = torch.randn(3, 9, P + 3 * Z, generator=torch.Generator().manual_seed(0)).unbind()
    image = target[:, :P].sigmoid().view(9, 1, 2, 3)
    metrics = GenerationMetrics(Z, PixelDecoder(), fidelity=True)
    metrics.update(taught, image, teacher_logits=given)
    metrics.reset()
    for part in (slice(5), slice(5, 9)):
        metrics.update(
            given[part], image[part], loss=torch.tensor(float(len(given[part]))), teacher_logits=taught[part]
        )
    found = metrics.compute()
    own, other = VAEOutputs.of(given, Z), VAEOutputs.of(taught, Z)
    decoder = PixelDecoder().divergence(other.decoded, own.decoded).mean()
    assert found["decoder_kl_to_teacher"] == pytest.approx(float(decoder), rel=1e-5)
    assert found["loss"] == pytest.approx((25 + 16) / 9)
    assert math.isfinite(found["posterior_kl_to_teacher"])
