"""A sequence classifier of Hugging Face transformers, from a local folder: ``pip install 'kdexp[text]'``."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.models.text_tokens import Tokens, check_texts

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


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
    transformers = _library()
    transformers.utils.logging.disable_progress_bar()
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"folder must be a local folder (nothing is fetched by name), got {folder}")
    wanted = ("config.json", "tokenizer.json") if pretrained else ("config.json",)
    absent = [name for name in wanted if not (path / name).is_file()]
    if absent:
        raise ValueError(f"folder must have {', '.join(wanted)}, got {folder} without {absent[0]}")
    if pretrained and not any((path / name).is_file() for name in _WEIGHTS):
        pickles = sorted(found.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for found in path.glob(pattern))
        found = f"{pickles[0]}, a pickle, which is not read" if pickles else "none"
        raise ValueError(f"folder must have its weights in model.safetensors, got {found}, in {folder}")
    config = _config(transformers, path, num_classes)
    auto = transformers.AutoModelForSequenceClassification
    settings: dict[str, Any] = {"trust_remote_code": False, "attn_implementation": "eager"}
    try:
        if pretrained:
            network = auto.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, **settings
            )
        else:
            network = auto.from_config(config, **settings)
    except Exception as error:  # it has many ways of refusing
        raise ValueError(
            f"folder must hold a sequence classifier of transformers, got {folder}: {_line(error)}"
        ) from error
    if max_tokens > (most := _positions(network) or max_tokens):
        raise ValueError(
            f"max_tokens must be at most {most}, the positions of the network in {folder}, got {max_tokens}"
        )
    tokenizer = str(path / "tokenizer.json") if pretrained else None
    tokens = Tokens(file=tokenizer, vocab_size=config.vocab_size, max_tokens=max_tokens)
    return HFText(tokens, network.float(), config.pad_token_id or 0)


class HFText(nn.Module):
    """See `hf_text`."""

    def __init__(self, tokens: Tokens, network: nn.Module, padding: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.network, self._padding = network, padding

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, L) -> (N, num_classes)."""
        ids, mask = self.tokens(inputs)
        ids = ids.where(mask, self._padding)
        # Where shapes alone are wanted, a mask has no values for the library to look at.
        seen = None if inputs.is_meta else mask.to(torch.int64)
        logits: Tensor = self.network(input_ids=ids, attention_mask=seen).logits
        return logits


def _config(transformers: ModuleType, path: Path, num_classes: int) -> Any:
    try:
        said = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if said.get("auto_map"):
            raise ValueError("it names code of its own (auto_map), which is not run")
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # no JSON, no model that transformers knows
        raise ValueError(f"folder must have a config.json of transformers' own, got {path}: {_line(error)}") from error
    classifies = any("ForSequenceClassification" in name for name in said.get("architectures") or ())
    if classifies and config.num_labels != num_classes:
        raise ValueError(f"folder must hold a classifier of {num_classes} labels, got {config.num_labels} in {path}")
    config.num_labels = num_classes
    return config


def _positions(network: nn.Module) -> int | None:
    """How many tokens it can place; those of RoBERTa begin behind the place that stands for padding."""
    tables = [table for path, table in network.named_modules() if path.endswith("position_embeddings")]
    numbers = (getattr(table, "padding_idx", None) for table in tables)
    first = max((number + 1 for number in numbers if number is not None), default=0)
    most = getattr(network.config, "max_position_embeddings", None)
    return most - first if most else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _library() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError("transformers must be installed for hf_text: pip install 'kdexp[text]'") from error
