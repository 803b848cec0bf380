"""A variational autoencoder's bound (Kingma and Welling 2014, arXiv 1312.6114), and its distillation.

All in nats: sums over pixels and latent dimensions, a value for each sample.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


class PixelDecoder(NamedTuple):
    """How the numbers that a decoder gives for P pixels are read.

    Attributes:
        sigma: standard deviation of normally distributed pixels, whose means the decoder gives; None: Bernoulli pixels,
            whose logits it gives. Gray values in [0, 1] are then taken as probabilities: what is called the likelihood
            is none, and its best value not 0.
    """

    sigma: float | None = None

    def negative_log_likelihood(self, decoded: Tensor, pixels: Tensor) -> Tensor:
        """``-log p(x | z)``, constants included, (N,): both arguments (N, P) float."""
        check_shapes("N P, N P", decoded=decoded, pixels=pixels)
        if self.sigma is None:
            return F.binary_cross_entropy_with_logits(decoded, pixels, reduction="none").sum(1)
        constant = math.log(self.sigma) + 0.5 * math.log(2 * math.pi)
        return ((pixels - decoded).square() / (2 * self.sigma**2) + constant).sum(1)

    def divergence(self, teacher: Tensor, student: Tensor) -> Tensor:
        """``KL(p_t(x | z) || p_s(x | z))``, (N,): both arguments (N, P) float."""
        check_shapes("N P, N P", teacher=teacher, student=student)
        if self.sigma is not None:
            return (teacher - student).square().sum(1) / (2 * self.sigma**2)
        # log sigmoid(z) = z - softplus(z), and log(1 - sigmoid(z)) = -softplus(z)
        return (teacher.sigmoid() * (teacher - student) + F.softplus(student) - F.softplus(teacher)).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        """The mean of each pixel, of the same shape."""
        return decoded.sigmoid() if self.sigma is None else decoded

    @staticmethod
    def pixels(images: Tensor) -> Tensor:
        """(N, ...) images, uint8 or float, as (N, P) float in [0, 1] (floats as they are)."""
        return images.flatten(1) if images.is_floating_point() else images.flatten(1).float() / 255


def gaussian_kl(mu: Tensor, logvar: Tensor, other_mu: Tensor, other_logvar: Tensor) -> Tensor:
    """``KL(N(mu, exp(logvar)) || N(other_mu, exp(other_logvar)))`` of diagonal normals.

    Args:
        mu: (N, Z) float.
        logvar: (N, Z) float, logarithm of the variances.
        other_mu: (N, Z) float, of the second distribution.
        other_logvar: (N, Z) float, likewise.

    Returns:
        (N,), >= 0.
    """
    check_shapes("N Z, N Z, N Z, N Z", mu=mu, logvar=logvar, other_mu=other_mu, other_logvar=other_logvar)
    spread = ((logvar - other_logvar).exp() + (mu - other_mu).square() * (-other_logvar).exp()) - 1
    return 0.5 * (spread + other_logvar - logvar).sum(1)


class VAEOutputs(NamedTuple):
    """What a VAE says of N images.

    Attributes:
        decoded: (N, P) what its decoder gives at z, see `PixelDecoder`.
        mu: (N, Z) mean of the posterior.
        logvar: (N, Z) logarithm of its variances.
        z: (N, Z) drawn from it.
    """

    decoded: Tensor
    mu: Tensor
    logvar: Tensor
    z: Tensor

    @classmethod
    def of(cls, given: Tensor, latent: int) -> "VAEOutputs":
        """Take apart what a `kdexp.models.vae.VAE` gives.

        Args:
            given: (N, P + 3 Z) float.
            latent: Z.
        """
        return cls(*torch.split(at_least_fp32(given), [given.shape[1] - 3 * latent, latent, latent, latent], 1))

    def rate(self) -> Tensor:
        """``KL(q(z | x) || N(0, I))``, (N,)."""
        standard = torch.zeros_like(self.mu)
        return gaussian_kl(self.mu, self.logvar, standard, standard)


class VAEDistillation(nn.Module):
    """Follow the teacher's posterior, and its decoder at the teacher's z; the temperature has no meaning here.

    ``posterior * KL(q_t(z | x) || q_s(z | x)) + decoder * KL(p_t(x | z_t) || p_s(x | z_t))``, a mean over samples. With
    Bernoulli pixels the second is the cross entropy less the teacher's own entropy, with Gaussian ones the squared
    error divided by 2 sigma^2.

    Args:
        latent: Z of both networks.
        sigma: see `PixelDecoder`.
        posterior: weight of the first part, >= 0.
        decoder: weight of the second, >= 0.

    Raises:
        ValueError: a negative weight.
    """

    compares = "distributions"
    """Not rows of logits, as other losses do."""

    def __init__(self, latent: int, sigma: float | None = None, posterior: float = 1.0, decoder: float = 1.0) -> None:
        super().__init__()
        for name, weight in (("posterior", posterior), ("decoder", decoder)):
            if weight < 0:
                raise ValueError(f"loss.{name} must be >= 0, got {weight}")
        self.latent, self.sigma, self.posterior, self.decoder = latent, sigma, posterior, decoder

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The scalar.

        Args:
            student: (N, P + 2 Z): what its decoder gives at the teacher's z, its mu and its logvar.
            teacher: the same of the teacher; gets no gradient.
            target: not used.
        """
        check_shapes("N C, N C", student=student, teacher=teacher)
        sizes = [student.shape[1] - 2 * self.latent, self.latent, self.latent]
        own, mu, logvar = torch.split(at_least_fp32(student), sizes, 1)
        others, other_mu, other_logvar = torch.split(at_least_fp32(teacher.detach()), sizes, 1)
        followed = self.posterior * gaussian_kl(other_mu, other_logvar, mu, logvar)
        return (followed + self.decoder * PixelDecoder(self.sigma).divergence(others, own)).mean()
