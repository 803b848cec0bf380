"""The part of a student that becomes a file, and what it takes there.

Images and tables go in as they are. Of a network of texts the file begins behind the tokenizer, which is no part of a
graph; of a variational autoencoder the noise is an input, because kdexp draws it from the bits of a sample.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdexp.export.preprocessing import Preprocessed
from kdexp.models.text_tokens import Tokens
from kdexp.models.vae import VAE


@dataclass(frozen=True)
class Graph:
    """What is written.

    Attributes:
        network: on the CPU; takes the inputs of the file.
        names: of the inputs.
        feed: (N, ...) inputs as kdexp's networks get them, normalised -> the inputs of the file.
    """

    network: nn.Module
    names: Sequence[str]
    feed: Callable[[Tensor], tuple[Tensor, ...]]

    def on_normalised(self, file: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        """What takes the inputs of the file, as kdexp's networks are: inputs on any device, normalised, to logits."""
        return lambda inputs: file(*self.feed(inputs.cpu())).to(inputs.device)


def graph_of(network: nn.Module) -> Graph:
    """What becomes a file; it takes normalised inputs.

    Args:
        network: the student, which stays as it is.
    """
    own = copy.deepcopy(network).eval().cpu()
    tokens = getattr(own, "tokens", None)
    if isinstance(tokens, Tokens):
        own.tokens = Padded()
        return Graph(own, ["tokens"], lambda inputs: (_padded(tokens, inputs),))
    if isinstance(own, VAE):
        return Graph(_WithNoise(own), ["input", "noise"], lambda inputs: (inputs, own.noise(inputs)))
    return Graph(own, ["input"], lambda inputs: (inputs,))


@dataclass(frozen=True)
class Stored:
    """How a data set stores its samples.

    Attributes:
        mean: see `kdexp.export.preprocessing.Preprocessed`.
        std: likewise.
        shape: of a sample.
        are_bytes: whether they are images of uint8.
    """

    mean: Sequence[float]
    std: Sequence[float]
    shape: Sequence[int]
    are_bytes: bool


def with_preprocessing(graph: Graph, stored: Stored) -> Graph:
    """The same for inputs as they are stored.

    Raises:
        ValueError: they are texts, whose tokenizer is no part of a graph.
    """
    if graph.names[0] == "tokens":
        raise ValueError("preprocessing must be false for texts, whose tokenizer is no part of a file, got true")
    module = Preprocessed(graph.network, stored.mean, stored.std, stored.shape)
    module.training = graph.network.training

    def feed(inputs: Tensor) -> tuple[Tensor, ...]:
        raw = inputs * module.std + module.mean
        # Bytes are rounded to, which gives back every bit of them.
        raw = (raw * 255).round().clamp(0, 255).to(torch.uint8) if stored.are_bytes else raw
        return (raw, *graph.feed(inputs)[1:])

    return Graph(module, graph.names, feed)


class Padded(nn.Module):
    """In the place of a tokenizer: numbers of tokens, negative at padding, to what `Tokens` gives."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T) int64 -> (N, T) int64 and bool."""
        return tokens.clamp(min=0), tokens >= 0


def _padded(tokenizer: Tokens, inputs: Tensor) -> Tensor:
    ids, mask = tokenizer(inputs)
    padded: Tensor = ids.where(mask, -1)
    return padded


class _WithNoise(nn.Module):
    """A variational autoencoder that is given its noise."""

    def __init__(self, network: VAE) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """(N, ...) and (N, Z) -> (N, P + 3 Z)."""
        return self.network.from_noise(images, noise)
