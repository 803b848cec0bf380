"""The parts of a variational autoencoder's bound against torch.distributions, and its distillation by hand."""

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from kdexp.losses.vae import PixelDecoder, VAEDistillation, VAEOutputs, gaussian_kl

N, P, Z = 5, 12, 3


def made(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(mu, logvar):
    return Independent(Normal(mu, (logvar / 2).exp()), 1)


def outputs(seed):
    return VAEOutputs.of(made(N, P + 3 * Z, seed=seed), Z)


def test_the_kl_of_normals_and_the_rate_are_those_of_torch_distributions():
    one, other = outputs(0), outputs(1)
    found = gaussian_kl(one.mu, one.logvar, other.mu, other.logvar)
    torch.testing.assert_close(found, kl_divergence(normal(one.mu, one.logvar), normal(other.mu, other.logvar)))
    standard = normal(torch.zeros_like(one.mu), torch.zeros_like(one.mu))
    torch.testing.assert_close(one.rate(), kl_divergence(normal(one.mu, one.logvar), standard))


@pytest.mark.parametrize("sigma", [None, 0.3])
def test_both_decoders_are_those_of_torch_distributions(sigma):
    decoded, other = made(N, P), made(N, P, seed=1)
    image = made(N, P, seed=2).gt(0).double()

    def of(given):
        return Independent(Bernoulli(logits=given) if sigma is None else Normal(given, sigma), 1)

    decoder = PixelDecoder(sigma)
    torch.testing.assert_close(decoder.negative_log_likelihood(decoded, image), -of(decoded).log_prob(image))
    torch.testing.assert_close(decoder.divergence(decoded, other), kl_divergence(of(decoded), of(other)))
    torch.testing.assert_close(decoder.mean(decoded), of(decoded).mean)


def test_certain_pixels_have_a_divergence_without_nan():
    sure = torch.tensor([[200.0, -200.0]], requires_grad=True)
    found = PixelDecoder().divergence(-sure.detach(), sure).sum()
    found.backward()
    assert float(found.detach()) == 400
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_the_loss_is_the_weighted_sum_of_its_parts(sigma):
    one, other = outputs(0), outputs(1)
    student, teacher = (torch.cat((of.decoded, of.mu, of.logvar), 1) for of in (one, other))
    posterior = gaussian_kl(other.mu, other.logvar, one.mu, one.logvar).mean()
    decoder = PixelDecoder(sigma).divergence(other.decoded, one.decoded).mean()
    found = VAEDistillation(Z, sigma, posterior=2.0, decoder=0.5)(student, teacher, torch.empty(N))
    torch.testing.assert_close(found, 2 * posterior + 0.5 * decoder)
    assert float(VAEDistillation(Z, sigma)(student, student, torch.empty(N))) == pytest.approx(0, abs=1e-12)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"^loss.decoder must be >= 0, got -1$"):
        VAEDistillation(Z, decoder=-1)


def test_bytes_are_scaled_and_floats_are_not():
    assert PixelDecoder.pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist() == [[0, 1]]
    assert PixelDecoder.pixels(torch.tensor([[[[0.25]]]])).tolist() == [[0.25]]
