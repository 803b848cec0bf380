import pytest
import torch

from kdexp.experiment.near_chance import of_images
from kdexp.losses.vae import PixelDecoder


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_a_vae_is_told_beside_the_mean_image(sigma):
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    mean = images.flatten(1).mean(0)
    given = (
        torch.distributions.Bernoulli(mean, validate_args=False)
        if sigma is None
        else torch.distributions.Normal(mean, sigma)
    )
    blind = float(given.log_prob(images.flatten(1)).sum(1).mean())
    for elbo, active, is_good in ((blind + 1, 2, True), (blind + 1, 0, False), (blind - 1, 2, False)):
        found, advice = of_images(elbo, active, images, PixelDecoder(sigma))
        assert found.endswith(f"the mean image for all {blind:.2f}")
        assert (not advice) == is_good
