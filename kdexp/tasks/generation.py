"""Generation: a variational autoencoder of images, whose target is the image itself."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdexp.config.require import is_number, require
from kdexp.contracts import Batch, Capability, Images, Kind, Outputs, Source, Split, TaskMetrics
from kdexp.data.black_and_white import binarized
from kdexp.data.splits import check_inputs, check_number_of_samples, parts_of
from kdexp.losses.vae import PixelDecoder, VAEOutputs
from kdexp.tasks.step_means import mean_of_step


@dataclass(frozen=True)
class Generation:
    """See `kdexp.contracts.Task`. A network gives (N, P + 3 Z), see `kdexp.models.vae.VAE`; labels are ignored.

    Attributes:
        of_test: settings on which no training depends.
        num_outputs: of the data set; it has classes, and nothing here looks at them.
        kind: likewise.
        label_smoothing: must be 0.
        latent: Z, the dimensions of the latent vector of teacher and student, >= 1.
        sigma: standard deviation of the pixels that a Gaussian decoder gives, > 0; None: a Bernoulli decoder.
        beta: weight of the KL in the hard term, >= 0 (beta-VAE, Higgins et al. 2017); the metrics have 1.
        binarize: seed by which each gray value becomes 0 or 1, once; None: they stay gray.
        importance_samples: K of the importance-weighted bound on test (Burda et al. 2016); 0: it is not computed.
    """

    of_test: ClassVar = ("importance_samples",)

    num_outputs: int
    kind: Kind = "multiclass"
    label_smoothing: float = 0.0
    latent: int = 20
    sigma: float | None = None
    beta: float = 1.0
    binarize: int | None = None
    importance_samples: int = 0
    compares: str = field(default="distributions", init=False)
    measure: str = field(default="elbo", init=False)
    monitor: str = field(default="val/neg_elbo", init=False)
    supports: frozenset[Capability] = field(default=frozenset({"images"}), init=False)

    def __post_init__(self) -> None:
        """See that the settings are what a VAE can have.

        Raises:
            ValueError: they are not.
        """
        require(self.label_smoothing == 0, "label_smoothing", "must be 0 for task=generation", self.label_smoothing)
        for name, least in (("latent", 1), ("importance_samples", 0)):
            value = getattr(self, name)
            rule = f"must be a whole number of at least {least}"
            require(type(value) is int and value >= least, f"task.{name}", rule, value)
        is_spread = self.sigma is None or (is_number(self.sigma) and 0 < self.sigma < math.inf)
        require(is_spread, "task.sigma", "must be null or > 0", self.sigma)
        require(is_number(self.beta) and 0 <= self.beta < math.inf, "task.beta", "must be >= 0", self.beta)
        is_seed = self.binarize is None or type(self.binarize) is int
        require(is_seed, "task.binarize", "must be null or a whole number, a seed", self.binarize)

    @property
    def decoder(self) -> PixelDecoder:
        """How what the decoder gives is read."""
        return PixelDecoder(self.sigma)

    def own_targets(self, source: Source) -> Source:
        """The data set with its images for targets, black and white where that is set.

        Raises:
            ValueError: it has no images, or streams them.
        """
        train, test = self._shown(source.train_inputs, 0), self._shown(source.test_inputs, 1)
        val = None if source.val is None else self._shown(source.val[0], 2)
        return Source(train, train, test, test, None if val is None else (val, val))

    def _shown(self, images: Tensor | Images, part: int) -> Tensor:
        if not isinstance(images, Tensor) or images.dim() != 4:
            found = f"a sample of shape {list(images[0].shape)}, {type(images).__name__}"
            raise ValueError(f"dataset.source must give images (N, C, H, W) in memory for task=generation, got {found}")
        if self.binarize is None:
            return images
        self._check_range(images, ("train", "test", "val")[part])
        return binarized(images, self.binarize, part)

    def _check_range(self, images: Tensor, part: str) -> None:
        low, high = (float(end) for end in images.aminmax())
        is_inside = images.dtype == torch.uint8 or 0 <= low <= high <= 1
        rule = f"must give images in [0, 1] in {part} for a Bernoulli decoder (task.sigma=null) or task.binarize"
        require(is_inside, "dataset.source", rule, f"{low:g} to {high:g}")

    def check_source(self, source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
        """See that targets are images, as `own_targets` gives them; for a Bernoulli decoder in [0, 1]."""
        for part, (inputs, target) in parts_of(source).items():
            check_inputs(part, inputs, input_shape)
            check_number_of_samples(part, inputs, target)
            if self.sigma is None:
                self._check_range(target, part)

    def networks(self, input_shape: Sequence[int]) -> Sequence[str]:
        """See `kdexp.contracts.Task`."""
        return ("vae_mlp", "vae_conv")

    def logits_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """(P + 3 Z,) for P pixels."""
        return (math.prod(input_shape) + 3 * self.latent,)

    def hard(self, student: Outputs, batch: Batch) -> Tensor:
        """The negative ELBO, distortion + `beta` * rate: sums over pixels and latents, in nats, a mean over samples."""
        own = VAEOutputs.of(student.logits, self.latent)
        distortion = self.decoder.negative_log_likelihood(own.decoded, self.decoder.pixels(batch.target))
        return _mean((distortion + self.beta * own.rate()).mean(), batch)

    def soft(self, loss: nn.Module, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of the posteriors, and of what both decoders give at the teacher's z.

        Args:
            loss: ``forward(student, teacher, target)`` of (N, P + 2 Z): decoded, mu, logvar.
            student: with its network, whose ``decode(z)`` is called.
            teacher: its z come from its outputs.
            batch: what both saw.
        """
        own, other = (VAEOutputs.of(outputs.logits, self.latent) for outputs in (student, teacher))
        assert student.network is not None
        decoded = student.network.decode(other.z)  # type: ignore[operator]
        value: Tensor = loss(
            torch.cat((decoded.float(), own.mu, own.logvar), 1),
            torch.cat((other.decoded, other.mu, other.logvar), 1),
            batch.target,
        )
        return _mean(value, batch)

    def metrics(
        self, *, split: Split | None = None, fidelity: bool = False, of_training: bool = False, alone: bool = False
    ) -> TaskMetrics:
        """See `kdexp.metrics.generation.GenerationMetrics`; of training batches the ELBO and its parts alone."""
        from kdexp.metrics.generation import GenerationMetrics  # here: see `kdexp.tasks.classification`

        return GenerationMetrics(
            self.latent, self.decoder, fidelity=fidelity, elbo_only=of_training, sync_on_compute=not alone
        )

    @property
    def record(self) -> str:
        """See `kdexp.contracts.Task`."""
        return "elbo"

    def records(self, logits: Tensor, target: Tensor) -> Tensor:
        """The ELBO of each sample in nats, (N,)."""
        own = VAEOutputs.of(logits, self.latent)
        return -(self.decoder.negative_log_likelihood(own.decoded, self.decoder.pixels(target)) + own.rate())

    def measure_of(self, mean: Tensor) -> Tensor:
        """(...) -> (...): the mean itself."""
        return mean

    @torch.no_grad()
    def pictures(self, network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What a network makes of images, and as many that it decodes from points of N(0, I).

        Args:
            network: in eval mode.
            inputs: (n, ...) normalised.

        Returns:
            The mean of each pixel, twice (n, P); the points are the same for every network.
        """
        rebuilt = VAEOutputs.of(network(inputs), self.latent).decoded
        points = torch.randn(len(inputs), self.latent, generator=torch.Generator().manual_seed(0))
        decoded: Tensor = network.decode(points.to(inputs.device))  # type: ignore[operator]
        return self.decoder.mean(rebuilt), self.decoder.mean(decoded)

    def of_network(self, network: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """``iw_elbo``: `kdexp.metrics.generation.importance_weighted` where `importance_samples` is set."""
        if not self.importance_samples:
            return {}
        from kdexp.metrics.generation import importance_weighted

        bound = importance_weighted(network, batches, self.latent, self.decoder, self.importance_samples)
        return {"iw_elbo": bound}


def _mean(mean: Tensor, batch: Batch) -> Tensor:
    return mean_of_step(mean, batch, lambda target: torch.tensor(len(target), device=mean.device))
