"""Transformer encoder of texts (Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762)."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import FeatureLayers
from kdexp.models.text_tokens import Tokens, check_sizes, check_texts


def text_transformer(
    num_classes: int,
    input_shape: Sequence[int],
    tokenizer: Mapping[str, Any],
    vocab_size: int = 8000,
    max_tokens: int = 64,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    hidden: int = 512,
    dropout: float = 0.1,
    norm: str = "pre",
    word_dropout: float = 0.0,
) -> nn.Module:
    """Learned positions, blocks of attention and two linear layers; the mean over the tokens is classified.

    Modules: ``tokens`` (see `kdexp.models.text_tokens.Tokens`), ``embedding`` and ``blocks.K``, whose outputs are
    (N, T, width), 0 at padding; ``blocks.K.attention.query``, ``.key`` and ``.value``, likewise but for the padding;
    ``pool``, (N, width), which the classifier reads; ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (characters); texts may be of any length.
        tokenizer: ``kind`` and ``file`` of `Tokens`.
        vocab_size: see there.
        max_tokens: see there.
        width: F, features of a token; divisible by heads.
        depth: number of blocks, at least 1.
        heads: of each attention.
        hidden: width of the layer between the two linear ones of a block.
        dropout: of embeddings, of what each half of a block adds, and before the classifier.
        norm: where the layer norm is: ``pre``, before each half of a block, with one more at the end (Xiong et al.
            2020, arXiv 2002.04745); ``post``, after it, as in BERT.
        word_dropout: see `Tokens`.

    Returns:
        Maps (N, L) code points to logits (N, num_classes).

    Raises:
        ValueError: a setting breaks a rule.
    """
    check_texts("text_transformer", input_shape)
    check_sizes(width=width, depth=depth, heads=heads, hidden=hidden)
    if norm not in ("pre", "post"):
        raise ValueError(f"norm must be pre or post, got {norm}")
    if width % heads:
        raise ValueError(f"heads must divide width={width}, got {heads}")
    tokens = Tokens(**tokenizer, vocab_size=vocab_size, max_tokens=max_tokens, word_dropout=word_dropout)
    embedding = Embedding(vocab_size, max_tokens, width, dropout, has_norm=norm == "post")
    blocks = [Block(width, heads, hidden, dropout, is_pre=norm == "pre") for _ in range(depth)]
    last = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
    return TextTransformer(tokens, embedding, blocks, last, nn.Dropout(dropout), nn.Linear(width, num_classes))


class TextTransformer(nn.Module):
    """See `text_transformer`.

    Attributes:
        layers: where features are read.
    """

    def __init__(
        self,
        tokens: Tokens,
        embedding: "Embedding",
        blocks: Sequence["Block"],
        norm: nn.Module,
        dropout: nn.Dropout,
        classifier: nn.Linear,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.embedding, self.blocks, self.norm = embedding, nn.ModuleList(blocks), norm
        self.pool, self.dropout, self.classifier = MaskedMean(), dropout, classifier
        stages = [f"blocks.{number}" for number in range(len(blocks))]
        self.layers = FeatureLayers(stages, "pool", "classifier", mask="tokens.mask")

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, L) -> (N, num_classes)."""
        ids, mask = self.tokens(inputs)
        states = self.embedding(ids, mask)
        for block in self.blocks:
            states = block(states, mask)
        logits: Tensor = self.classifier(self.dropout(self.pool(self.norm(states), mask)))
        return logits


class Embedding(nn.Module):
    """Of a token and of its place."""

    def __init__(self, vocab_size: int, max_tokens: int, width: int, dropout: float, *, has_norm: bool) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(vocab_size, width), nn.Embedding(max_tokens, width)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=0.02)  # as BERT's
        self.norm = nn.LayerNorm(width) if has_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) int64 and bool -> (N, T, width)."""
        states = self.words(ids) + self.positions.weight[: ids.shape[1]]
        return cast(Tensor, self.dropout(self.norm(states))) * mask.unsqueeze(2)


class Block(nn.Module):
    """Attention, then two linear layers; what each half gives is added to what it got."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, is_pre: bool) -> None:
        super().__init__()
        self._is_pre = is_pre
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, T, width) and (N, T) bool -> (N, T, width)."""
        if self._is_pre:
            states = states + self.dropout(self.attention(self.norm1(states), mask))
            states = states + self.dropout(self.mlp(self.norm2(states)))
        else:
            states = self.norm1(states + self.dropout(self.attention(states, mask)))
            states = self.norm2(states + self.dropout(self.mlp(states)))
        return states * mask.unsqueeze(2)


class Attention(nn.Module):
    """Of several heads, from all tokens to all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, T, width) and (N, T) bool -> (N, T, width)."""
        query, key, value = (
            layer(states).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        return cast(Tensor, self.out(found.transpose(1, 2).flatten(2)))


class MaskedMean(nn.Module):
    """The mean over the tokens of each text: a module, so that a hook can read it."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, T, F) and (N, T) bool -> (N, F)."""
        kept = mask.unsqueeze(2)
        return (states * kept).sum(1) / kept.sum(1)
