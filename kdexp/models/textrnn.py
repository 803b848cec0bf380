"""Recurrent classifier of texts, in one direction or in both."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.contracts import FeatureLayers
from kdexp.models.rnn import recurrent_layer
from kdexp.models.text_tokens import Tokens, check_sizes, check_texts


def textrnn(
    num_classes: int,
    input_shape: Sequence[int],
    tokenizer: Mapping[str, Any],
    vocab_size: int = 8000,
    max_tokens: int = 64,
    width: int = 128,
    cell: str = "gru",
    hidden: int = 128,
    layers: int = 1,
    bidirectional: bool = True,
    dropout: float = 0.5,
    word_dropout: float = 0.0,
) -> nn.Module:
    """GRU or LSTM over the embedded tokens; the state after the last token is classified.

    In both directions (Schuster & Paliwal 1997; the student of Tang et al. 2019, arXiv 1903.12136) that of the other
    one, after the first token, stands beside it.

    Modules: ``tokens`` (see `kdexp.models.text_tokens.Tokens`), ``embedding``, ``blocks.K``, (N, T, F), 0 at padding,
    ``pool``, (N, F), which the classifier reads, ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (characters); texts may be of any length.
        tokenizer: ``kind`` and ``file`` of `Tokens`.
        vocab_size: see there.
        max_tokens: see there.
        width: features of an embedded token; they begin uniform in (-.25, .25).
        cell: "gru" (Cho et al. 2014) or "lstm" (Hochreiter & Schmidhuber 1997).
        hidden: size of the state in each direction.
        layers: on top of each other, at least 1.
        bidirectional: whether the text is read from its end, too.
        dropout: of what each layer reads, and before the classifier.
        word_dropout: see `Tokens`.

    Returns:
        Maps (N, L) code points to logits (N, num_classes).

    Raises:
        ValueError: a setting breaks a rule.
    """
    check_texts("textrnn", input_shape)
    check_sizes(width=width, hidden=hidden, layers=layers)
    tokens = Tokens(**tokenizer, vocab_size=vocab_size, max_tokens=max_tokens, word_dropout=word_dropout)
    embedding = nn.Embedding(vocab_size, width)
    nn.init.uniform_(embedding.weight, -0.25, 0.25)
    features = 2 * hidden if bidirectional else hidden
    blocks = [
        BothWays(cell, width if first else features, hidden, bidirectional) for first in [True] + [False] * (layers - 1)
    ]
    return TextRNN(tokens, embedding, blocks, nn.Dropout(dropout), nn.Linear(features, num_classes))


class TextRNN(nn.Module):
    """See `textrnn`.

    Attributes:
        layers: where features are read.
    """

    def __init__(
        self,
        tokens: Tokens,
        embedding: nn.Embedding,
        blocks: Sequence["BothWays"],
        dropout: nn.Dropout,
        classifier: nn.Linear,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.embedding, self.blocks, self.dropout = embedding, nn.ModuleList(blocks), dropout
        self.pool, self.classifier = Ends(blocks[-1].hidden), classifier
        stages = [f"blocks.{number}" for number in range(len(blocks))]
        self.layers = FeatureLayers(stages, "pool", "classifier", mask="tokens.mask")

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, L) -> (N, num_classes)."""
        ids, mask = self.tokens(inputs)
        states = self.embedding(ids)
        for block in self.blocks:
            states = block(self.dropout(states), mask)
        logits: Tensor = self.classifier(self.dropout(self.pool(states, mask)))
        return logits


class BothWays(nn.Module):
    """A recurrent layer, or two, of which the other reads each text from its last token to its first.

    Padding comes after the tokens in both, so that no state of a token depends on it.
    """

    def __init__(self, cell: str, features: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.onwards = recurrent_layer(cell, features, hidden)
        self.backwards = recurrent_layer(cell, features, hidden) if bidirectional else None

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """(N, T, features) and (N, T) bool -> (N, T, hidden), or twice as many."""
        states, _ = self.onwards(steps)
        if self.backwards is not None:
            places = torch.arange(mask.shape[1], device=mask.device)
            turned = torch.where(mask, mask.sum(1, keepdim=True) - 1 - places, places).unsqueeze(2)
            others, _ = self.backwards(_at(steps, turned))
            states = torch.cat([states, _at(others, turned)], 2)
        kept: Tensor = states * mask.unsqueeze(2)
        return kept


class Ends(nn.Module):
    """The state of each direction when it has read the whole text."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, T, F) and (N, T) bool -> (N, F)."""
        last = (mask.sum(1) - 1).view(-1, 1, 1)
        return torch.cat([_at(states, last)[:, 0, : self._hidden], states[:, 0, self._hidden :]], 1)


def _at(states: Tensor, places: Tensor) -> Tensor:
    """(N, T, F) at (N, P, 1) -> (N, P, F), for `torch.export`, too, which take_along_dim keeps to one batch size."""
    return states.gather(1, places.expand(-1, -1, states.shape[2]))
