"""A sequence classifier of Hugging Face transformers, from a local folder: ``pip install 'kdexp[text]'``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.models.hf_folder import class_names, classifier
from kdexp.models.text_tokens import Tokens, check_texts


def hf_text(
    num_classes: int, input_shape: Sequence[int], folder: str, pretrained: bool = True, max_tokens: int = 128
) -> nn.Module:
    """What ``AutoModelForSequenceClassification`` makes of a folder; nothing is fetched and none of its code is run.

    Modules: ``tokens`` (see `kdexp.models.text_tokens.Tokens`) and ``network``, with the module paths of transformers.

    Args:
        num_classes: outputs of the network.
        input_shape: (characters); texts may be of any length.
        folder: with config.json, tokenizer.json and model.safetensors, as ``save_pretrained`` writes them. A classifier
            in it must have as many labels; that of an encoder alone begins at random.
        pretrained: begin with the weights and the tokenizer of the folder. Else the weights are random, and the
            vocabulary is found in the training texts, unless both come from a file afterwards.
        max_tokens: of a text, special ones among them; what is longer is cut.

    Returns:
        Maps (N, L) code points to logits (N, num_classes).

    Raises:
        ValueError: the library is not installed, or the folder breaks a rule: one line.
    """
    check_texts("hf_text", input_shape)
    network: Any = classifier(
        num_classes,
        folder,
        "ForSequenceClassification",
        "a sequence classifier",
        pretrained=pretrained,
        files=["tokenizer.json"],
    )
    if max_tokens > (most := _positions(network) or max_tokens):
        raise ValueError(
            f"max_tokens must be at most {most}, the positions of the network in {folder}, got {max_tokens}"
        )
    tokenizer = str(Path(folder) / "tokenizer.json") if pretrained else None
    tokens = Tokens(file=tokenizer, vocab_size=network.config.vocab_size, max_tokens=max_tokens)
    return HFText(tokens, network, network.config.pad_token_id or 0)


class HFText(nn.Module):
    """See `hf_text`."""

    def __init__(self, tokens: Tokens, network: nn.Module, padding: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.network, self._padding = network, padding
        self.class_names = class_names(network)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, L) -> (N, num_classes)."""
        ids, mask = self.tokens(inputs)
        ids = ids.where(mask, self._padding)
        # Where shapes alone are wanted, a mask has no values for the library to look at.
        seen = None if inputs.is_meta else mask.to(torch.int64)
        logits: Tensor = self.network(input_ids=ids, attention_mask=seen).logits
        return logits


def _positions(network: Any) -> int | None:
    """How many tokens it can place; those of RoBERTa begin behind the place that stands for padding."""
    tables = [table for path, table in network.named_modules() if path.endswith("position_embeddings")]
    numbers = (getattr(table, "padding_idx", None) for table in tables)
    first = max((number + 1 for number in numbers if number is not None), default=0)
    most = getattr(network.config, "max_position_embeddings", None)
    return most - first if most else None
