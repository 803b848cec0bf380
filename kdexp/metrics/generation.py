"""ELBO, rate and distortion, active units, PSNR of variational autoencoders."""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from kdexp.contracts import Batch
from kdexp.losses.vae import PixelDecoder, VAEOutputs, gaussian_kl
from kdexp.metrics.mean import Mean

ACTIVE = 0.01
"""The variance of mu over the data above which a latent dimension is active: Burda et al. 2016, section 5.2."""


class GenerationMetrics(nn.Module):
    """The metrics of one split of images, synchronised over ranks when they are computed.

    - ``loss``: mean over samples of what `update` was given.
    - ``distortion``, ``rate``: means over samples of ``-log p(x | z)`` at one z for each sample, and of
      ``KL(q(z | x) || N(0, I))``, sums over pixels and latent dimensions, in nats.
    - ``elbo``: less their sum; ``neg_elbo``: their sum.
    - ``active_units``: latent dimensions whose mean has a variance above `ACTIVE` over the split.
    - ``psnr``: of the mean image at z, in dB, the error being the mean over all pixels of the split.
    - ``posterior_kl_to_teacher``, ``decoder_kl_to_teacher``: means over samples of ``KL(q_t(z | x) || q_s(z | x))`` and
      of ``KL(p_t(x | z_t) || p_s(x | z_s))``, each decoder at its own z.

    Args:
        latent: Z.
        decoder: how what networks decode is read.
        fidelity: whether `update` is given the teacher's outputs.
        elbo_only: elbo, neg_elbo, distortion and rate (and the loss) alone: for training batches.
        sync_on_compute: False where one rank computes alone.
    """

    def __init__(
        self,
        latent: int,
        decoder: PixelDecoder,
        *,
        fidelity: bool = False,
        elbo_only: bool = False,
        sync_on_compute: bool = True,
    ) -> None:
        super().__init__()
        self._latent, self._decoder = latent, decoder
        names = ["loss", "distortion", "rate", *([] if elbo_only else ["squared_error"])]
        names += ["posterior_kl_to_teacher", "decoder_kl_to_teacher"] if fidelity else []
        self._means = nn.ModuleDict({name: Mean(sync_on_compute=sync_on_compute) for name in names})
        self._spread = Spread(latent, sync_on_compute=sync_on_compute)

    @torch.no_grad()
    def update(
        self, logits: Tensor, target: Tensor, loss: Tensor | None = None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            logits: (N, P + 3 Z), see `kdexp.models.vae.VAE`.
            target: (N, C, H, W), uint8 or float.
            loss: scalar, mean over the batch's samples.
            teacher_logits: like logits; needed when fidelity is measured.
        """
        own, image = VAEOutputs.of(logits, self._latent), self._decoder.pixels(target)
        found = {
            "distortion": self._decoder.negative_log_likelihood(own.decoded, image),
            "rate": own.rate(),
        }
        if "squared_error" in self._means:
            found["squared_error"] = (self._decoder.mean(own.decoded) - image).square().mean(1)
            self._spread.update(own.mu)
        if "posterior_kl_to_teacher" in self._means and teacher_logits is not None:
            other = VAEOutputs.of(teacher_logits, self._latent)
            found["posterior_kl_to_teacher"] = gaussian_kl(other.mu, other.logvar, own.mu, own.logvar)
            found["decoder_kl_to_teacher"] = self._decoder.divergence(other.decoded, own.decoded)
        if loss is not None:
            self._mean("loss").update(loss.detach() * len(target), len(target))
        for name, values in found.items():
            self._mean(name).update(values.sum(), len(values))

    def compute(self) -> dict[str, float]:
        """The values by name, of all that was added since the last reset, on all ranks."""
        known = [name for name in self._means if self._mean(name).update_called]
        values = {name: float(self._mean(name).compute()) for name in known}
        values["neg_elbo"] = values["distortion"] + values["rate"]
        values["elbo"] = -values["neg_elbo"]
        if "squared_error" in values:
            error = values.pop("squared_error")
            values["psnr"] = -10 * math.log10(error) if error > 0 else math.inf
            values["active_units"] = float((self._spread.compute() > ACTIVE).sum())
        return values

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (*map(self._mean, self._means), self._spread):
            metric.reset()

    def _mean(self, name: str) -> Mean:
        return cast(Mean, self._means[name])


class Spread(Metric):
    """Variances over a split and over ranks, of sums in float64.

    Args:
        size: numbers of a sample.
        kwargs: torchmetrics' own.
    """

    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "squares"):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add (N, size) numbers."""
        values = values.double()
        self.total += values.sum(0)
        self.squares += values.square().sum(0)
        self.count += len(values)

    def compute(self) -> Tensor:
        """(size,) float64, divided by the number of samples."""
        return self.squares / self.count - (self.total / self.count).square()


@torch.no_grad()
def importance_weighted(
    network: nn.Module, batches: Iterable[Batch], latent: int, decoder: PixelDecoder, samples: int
) -> float:
    """``mean log 1/K sum_k p(x, z_k) / q(z_k | x)``, z_k from q: Burda et al. 2016 (arXiv 1509.00519), equation 8.

    Args:
        network: a `kdexp.models.vae.VAE` in eval mode.
        batches: normalised, on its device.
        latent: Z.
        decoder: how what it decodes is read.
        samples: K >= 1, drawn in the order of the batches with a seed of their own.

    Returns:
        The mean over samples, in nats; at least the ELBO, but for chance.
    """
    generator, total, count = torch.Generator().manual_seed(0), 0.0, 0
    for batch in batches:
        own, image = VAEOutputs.of(network(batch.inputs), latent), decoder.pixels(batch.target)
        found = []
        for _ in range(samples):
            noise = torch.randn(own.mu.shape, generator=generator).to(own.mu.device)
            z = own.mu + noise * (own.logvar / 2).exp()
            decoded: Tensor = network.decode(z)  # type: ignore[operator]
            prior_over_posterior = 0.5 * (noise.square() + own.logvar - z.square()).sum(1)
            found.append(prior_over_posterior - decoder.negative_log_likelihood(decoded, image))
        bound = torch.stack(found).double().logsumexp(0) - math.log(samples)
        total, count = total + float(bound.sum()), count + len(bound)
    return total / count
