"""Variational autoencoders of images: Kingma and Welling 2014 (arXiv 1312.6114)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdexp.contracts import FeatureLayers
from kdexp.models.content_noise import content_noise
from kdexp.models.layers import image_channels


class VAE(nn.Module):
    """An encoder to a normal distribution with a diagonal covariance, and a decoder of what is drawn from it.

    In training z is drawn with PyTorch's generator, else as a function of the sample alone (`content_noise`): an
    evaluation, and what a frozen teacher says of a sample, is then the same whatever batch the sample is in.

    Modules: ``encoder`` (N, ...) to (N, features), ``mu``, ``logvar`` (N, latent), ``decoder`` (N, latent) to (N, ...).

    Args:
        encoder: its modules; its output is flattened.
        decoder: likewise.
        features: numbers of a sample that the encoder gives.
        latent: Z, the dimensions of z.
        stages: where feature losses read, in the encoder.

    Attributes:
        layers: see stages; the encoder's output is what the last layers read.
    """

    def __init__(
        self, encoder: nn.Sequential, decoder: nn.Sequential, features: int, latent: int, stages: Sequence[str]
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.mu, self.logvar = nn.Linear(features, latent), nn.Linear(features, latent)
        self.layers = FeatureLayers(list(stages), "mu:input", None)

    def forward(self, images: Tensor) -> Tensor:
        """(N, ...) -> (N, P + 3 Z): the decoder's logits of P pixels at z, then mu, logvar and z."""
        return self.from_noise(images, None if self.training else self.noise(images))

    def noise(self, images: Tensor) -> Tensor:
        """(N, ...) -> (N, Z): what z is drawn with in eval mode, see `content_noise`."""
        return content_noise(images, self.mu.out_features)

    def from_noise(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """As `forward`, with z drawn with noise (N, Z) of N(0, I); None: PyTorch's generator."""
        read = self.encoder(images).flatten(1)
        mu, logvar = self.mu(read).float(), self.logvar(read).float()
        z = mu + (torch.randn_like(mu) if noise is None else noise) * (logvar / 2).exp()
        return torch.cat((self.decode(z), mu, logvar, z), 1)

    def decode(self, z: Tensor) -> Tensor:
        """(N, Z) -> (N, P) float32: logits of the pixels, or of a Gaussian decoder their means."""
        pixels: Tensor = self.decoder(z)
        return pixels.flatten(1).float()


def vae_mlp(
    num_classes: int, input_shape: Sequence[int], hidden: Sequence[int] = (400,), latent: int = 20
) -> nn.Module:
    """Hidden layers with ReLU on both sides of z: that of the paper's section 5 has one.

    Args:
        num_classes: of the data set: it makes no difference here.
        input_shape: shape of one sample, without the batch.
        hidden: width of each hidden layer of the encoder; the decoder has the same in the other order.
        latent: Z.

    Returns:
        A `VAE`.

    Raises:
        ValueError: a width or latent below 1, or no hidden layer.
    """
    _check("latent of vae_mlp", latent)
    if not hidden or any(width < 1 for width in hidden):
        raise ValueError(f"hidden of vae_mlp must be one or more widths of at least 1, got {list(hidden)}")
    pixels = math.prod(input_shape)
    into, out = [pixels, *hidden], [latent, *reversed(hidden)]
    encoder = nn.Sequential(nn.Flatten(), *_layers(into))
    decoder = nn.Sequential(*_layers(out), nn.Linear(out[-1], pixels))
    return VAE(encoder, decoder, hidden[-1], latent, [f"encoder.{2 * layer}" for layer in range(1, len(into))])


def _check(what: str, size: int) -> None:
    if size < 1:
        raise ValueError(f"{what} must be at least 1, got {size}")


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    return [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]


def vae_conv(num_classes: int, input_shape: Sequence[int], width: int = 32, latent: int = 20) -> nn.Module:
    """Two convolutions that halve the image, a hidden layer of 8 width, and the same back.

    Args:
        num_classes: of the data set: it makes no difference here.
        input_shape: (channels, height, width), the last two multiples of 4.
        width: channels of the first convolution; the second has twice as many.
        latent: Z.

    Returns:
        A `VAE`.

    Raises:
        ValueError: inputs that are not such images, width or latent below 1.
    """
    channels = image_channels("vae_conv", input_shape)
    rows, columns = (side // 4 for side in input_shape[1:])
    if any(side % 4 for side in input_shape[1:]):
        raise ValueError(f"vae_conv must get images with sides of multiples of 4, got {list(input_shape[1:])}")
    _check("width of vae_conv", width)
    _check("latent of vae_conv", latent)
    maps, hidden = 2 * width * rows * columns, 8 * width
    encoder = nn.Sequential(
        *(nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(maps, hidden), nn.ReLU()),
    )
    decoder = nn.Sequential(
        *(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, maps), nn.ReLU()),
        nn.Unflatten(1, (2 * width, rows, columns)),
        *(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width, channels, 4, 2, 1)),
    )
    return VAE(encoder, decoder, hidden, latent, ["encoder.1", "encoder.3"])
