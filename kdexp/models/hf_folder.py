"""A classifier of Hugging Face transformers from a local folder: safetensors alone, no code of its own, no network."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def classifier(
    num_classes: int,
    folder: str,
    auto: str,
    what: str,
    *,
    pretrained: bool,
    files: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> nn.Module:
    """What one of transformers' AutoModels makes of a folder.

    Args:
        num_classes: a classifier in it must have as many labels, if its weights are taken; that of a backbone alone
            begins at random.
        folder: with config.json and model.safetensors, as ``save_pretrained`` writes them.
        auto: the AutoModel's name without AutoModel: ``ForSequenceClassification``.
        what: it makes, for messages.
        pretrained: begin with the folder's weights; else with random ones.
        files: what else must be there, to begin with its weights.
        sizes: settings of its configuration that must be so, where it has them.

    Raises:
        ValueError: the library is not installed, or the folder breaks a rule: one line.
    """
    transformers = _library()
    transformers.utils.logging.disable_progress_bar()
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"folder must be a local folder (nothing is fetched by name), got {folder}")
    wanted = ("config.json", *(files if pretrained else ()))
    absent = [name for name in wanted if not (path / name).is_file()]
    if absent:
        raise ValueError(f"folder must have {', '.join(wanted)}, got {folder} without {absent[0]}")
    if pretrained and not any((path / name).is_file() for name in _WEIGHTS):
        pickles = sorted(found.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for found in path.glob(pattern))
        found = f"{pickles[0]}, a pickle, which is not read" if pickles else "none"
        raise ValueError(f"folder must have its weights in model.safetensors, got {found}, in {folder}")
    config = _config(transformers, path, num_classes, auto, sizes or {}, pretrained=pretrained)
    model = getattr(transformers, f"AutoModel{auto}")
    settings: dict[str, Any] = {"trust_remote_code": False, "attn_implementation": "eager"}
    try:
        if pretrained:
            network: nn.Module = model.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, **settings
            )
        else:
            network = model.from_config(config, **settings)
    except Exception as error:  # it has many ways of refusing
        raise ValueError(f"folder must hold {what} of transformers, got {folder}: {_line(error)}") from error
    return network.float()


def class_names(network: Any) -> list[str]:
    """The names that its folder has for its labels, by number."""
    named = dict(network.config.id2label)
    return [str(named.get(number, number)) for number in range(network.config.num_labels)]


class HFImage(nn.Module):
    """A network of transformers that takes images; see `classifier`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.class_names = class_names(network)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> its logits."""
        logits: Tensor = self.network(pixel_values=inputs).logits
        return logits


def _config(
    transformers: ModuleType, path: Path, num_classes: int, auto: str, sizes: Mapping[str, int], *, pretrained: bool
) -> Any:
    try:
        said = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if said.get("auto_map"):
            raise ValueError("it names code of its own (auto_map), which is not run")
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # no JSON, no model that transformers knows
        raise ValueError(f"folder must have a config.json of transformers' own, got {path}: {_line(error)}") from error
    classifies = pretrained and any(auto in name for name in said.get("architectures") or ())
    if classifies and config.num_labels != num_classes:
        hint = "teacher.num_classes and teacher.classes take a teacher of other ones"
        rule = f"folder must hold a classifier of {num_classes} labels"
        raise ValueError(f"{rule}, got {config.num_labels} in {path}; {hint}")
    for name, size in sizes.items():
        known = getattr(config, name, size)
        if pretrained and known != size:
            raise ValueError(f"folder must hold a network with {name} {size}, got {known} in {path}")
        setattr(config, name, size)
    if not classifies:
        config.num_labels = num_classes
    return config


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _library() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        rule = "transformers must be installed for a folder of Hugging Face's"
        raise ValueError(f"{rule}: pip install 'kdexp[text]'") from error
