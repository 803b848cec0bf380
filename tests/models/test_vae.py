import pytest
import torch

from kdexp.losses.vae import VAEOutputs
from kdexp.models.content_noise import content_noise
from kdexp.models.vae import vae_conv, vae_mlp

NETWORKS = {"mlp": lambda: vae_mlp(10, [1, 8, 8], hidden=[16], latent=3), "conv": lambda: vae_conv(10, [1, 8, 8], 4, 3)}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def images(n=70):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_noise_is_standard_normal_and_of_the_content_alone():
    inputs = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = content_noise(inputs, 5)
    assert noise.mean(0).abs().max() < 0.06
    assert (noise.T.cov() - torch.eye(5)).abs().max() < 0.08
    for size in (1, 3, 32, 1000):
        assert torch.equal(torch.cat([content_noise(part, 5) for part in inputs[:1000].split(size)]), noise[:1000])
    inputs[0, 0, 0, 0] += 1e-6
    assert not torch.equal(content_noise(inputs[:1], 5), noise[:1])


@EVERY
def test_what_it_gives_is_decoded_from_the_z_that_it_gives(name):
    network = NETWORKS[name]().eval()
    given = VAEOutputs.of(network(images()), 3)
    assert given.decoded.shape == (70, 64)
    torch.testing.assert_close(network.decode(given.z), given.decoded)
    noise = (given.z - given.mu) / (given.logvar / 2).exp()
    torch.testing.assert_close(noise, content_noise(images(), 3), atol=1e-4, rtol=1e-4)


@EVERY
def test_z_is_drawn_in_training_and_fixed_in_evaluation(name):
    network = NETWORKS[name]()
    torch.manual_seed(0)
    first, second = network(images()), network(images())
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(network(images()), first)
    assert torch.equal(network.eval()(images()), network(images()))


def test_the_networks_of_the_paper_have_their_sizes():
    count = sum(parameter.numel() for parameter in vae_mlp(10, [1, 28, 28], [400], 20).parameters())
    assert count == 784 * 400 + 400 + 2 * (400 * 20 + 20) + 20 * 400 + 400 + 400 * 784 + 784


@pytest.mark.parametrize(("build", "message"), [
    (lambda: vae_mlp(10, [1, 8, 8], hidden=[]), r"^hidden of vae_mlp must be one or more widths .*, got \[\]$"),
    (lambda: vae_mlp(10, [1, 8, 8], latent=0), "^latent of vae_mlp must be at least 1, got 0$"),
    (lambda: vae_conv(10, [1, 10, 8]), r"^vae_conv must get images with sides of multiples of 4, got \[10, 8\]$"),
    (lambda: vae_conv(10, [1, 8, 8], width=0), "^width of vae_conv must be at least 1, got 0$"),
])  # fmt: skip
def test_what_cannot_be_built_is_one_line(build, message):
    with pytest.raises(ValueError, match=message):
        build()
