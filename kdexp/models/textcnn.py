"""TextCNN (Kim 2014, "Convolutional Neural Networks for Sentence Classification", arXiv 1408.5882)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import FeatureLayers
from kdexp.models.text_tokens import Tokens, check_sizes, check_texts


def textcnn(
    num_classes: int,
    input_shape: Sequence[int],
    tokenizer: Mapping[str, Any],
    vocab_size: int = 8000,
    max_tokens: int = 64,
    width: int = 128,
    kernels: Sequence[int] = (3, 4, 5),
    channels: int = 100,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> nn.Module:
    """Convolutions over the embedded tokens, the largest value of each channel, and a linear layer (CNN-rand).

    A convolution's window begins at each token; what is beyond the end is 0.

    Modules: ``tokens`` (see `kdexp.models.text_tokens.Tokens`), ``embedding``, ``convolutions``, ``states`` (the
    channels of all convolutions at each token, (N, T, F), 0 at padding), ``pool``, (N, F), which the classifier reads,
    ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (characters); texts may be of any length.
        tokenizer: ``kind`` and ``file`` of `Tokens`.
        vocab_size: see there.
        max_tokens: see there.
        width: features of an embedded token; they begin uniform in (-.25, .25).
        kernels: tokens that each convolution sees, all at least 1.
        channels: of each convolution.
        dropout: before the classifier.
        word_dropout: see `Tokens`.

    Returns:
        Maps (N, L) code points to logits (N, num_classes).

    Raises:
        ValueError: a setting breaks a rule.
    """
    check_texts("textcnn", input_shape)
    check_sizes(width=width, channels=channels)
    if not kernels or min(kernels) < 1:
        raise ValueError(f"kernels must be sizes of at least 1, got {list(kernels)}")
    tokens = Tokens(**tokenizer, vocab_size=vocab_size, max_tokens=max_tokens, word_dropout=word_dropout)
    embedding = nn.Embedding(vocab_size, width)
    nn.init.uniform_(embedding.weight, -0.25, 0.25)
    convolutions = nn.ModuleList(
        nn.Sequential(nn.ConstantPad1d((0, kernel - 1), 0.0), nn.Conv1d(width, channels, kernel)) for kernel in kernels
    )
    classifier = nn.Linear(channels * len(kernels), num_classes)
    return TextCNN(tokens, embedding, convolutions, nn.Dropout(dropout), classifier)


class TextCNN(nn.Module):
    """See `textcnn`.

    Attributes:
        layers: where features are read.
    """

    layers = FeatureLayers(["states"], "pool", "classifier", mask="tokens.mask")

    def __init__(
        self,
        tokens: Tokens,
        embedding: nn.Embedding,
        convolutions: nn.ModuleList,
        dropout: nn.Dropout,
        classifier: nn.Linear,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.embedding, self.convolutions = embedding, convolutions
        self.states, self.pool, self.dropout, self.classifier = nn.Identity(), Largest(), dropout, classifier

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, L) -> (N, num_classes)."""
        ids, mask = self.tokens(inputs)
        kept = mask.unsqueeze(1)
        embedded = self.embedding(ids).transpose(1, 2) * kept
        maps = [F.relu(layer(embedded)) for layer in self.convolutions]
        states = self.states((torch.cat(maps, 1) * kept).transpose(1, 2))
        logits: Tensor = self.classifier(self.dropout(self.pool(states)))
        return logits


class Largest(nn.Module):
    """The largest value of each channel; of values >= 0 the zeros at padding are never more than those of a token."""

    def forward(self, states: Tensor) -> Tensor:
        """(N, T, F) -> (N, F)."""
        return states.amax(1)
