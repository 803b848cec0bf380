"""A network of Hugging Face transformers for segmentation, from a local folder: ``pip install 'kdexp[text]'``."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.models.dense import check_dense
from kdexp.models.hf_folder import HFImage, classifier

_AUTO = "ForSemanticSegmentation"


def segments(folder: str) -> bool:
    """Whether a folder's config.json names a network for segmentation."""
    with suppress(OSError, ValueError, AttributeError):  # `hf_folder.classifier` says what is wrong with it
        said = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return any(_AUTO in str(name) for name in said.get("architectures") or ())
    return False


def hf_segmentation(folder: str, num_classes: int, input_shape: Sequence[int], pretrained: bool) -> nn.Module:
    """What ``AutoModelForSemanticSegmentation`` makes of a folder (SegFormer, UPerNet, ...).

    Its logits are resized to the size of the image (bilinear, align_corners=False), as transformers does.

    Args:
        folder: see `kdexp.models.huggingface.huggingface`.
        num_classes: outputs of the network; 1 for a binary task.
        input_shape: (channels, height, width).
        pretrained: see there.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes, H, W).

    Raises:
        ValueError: the library is not installed, or the folder breaks a rule: one line.
    """
    sizes = {"num_channels": int(input_shape[0])}
    network = classifier(num_classes, folder, _AUTO, "a network for segmentation", pretrained=pretrained, sizes=sizes)
    built = HFSegmentation(network)
    check_dense(built, type(network).__name__, num_classes, input_shape)
    return built


class HFSegmentation(HFImage):
    """See `hf_segmentation`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes, H, W)."""
        return F.interpolate(super().forward(inputs), size=inputs.shape[-2:], mode="bilinear", align_corners=False)
