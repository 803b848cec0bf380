"""A classifier of Hugging Face transformers, of images or of texts, as the data are."""

from collections.abc import Sequence

from torch import nn

from kdexp.models.hf_image import hf_image
from kdexp.models.hf_text import hf_text


def huggingface(
    num_classes: int, input_shape: Sequence[int], folder: str, pretrained: bool = True, max_tokens: int = 128
) -> nn.Module:
    """`kdexp.models.hf_image.hf_image` of images (C, H, W), `kdexp.models.hf_text.hf_text` of texts.

    Args:
        num_classes: outputs of the network.
        input_shape: of one sample.
        folder: see there.
        pretrained: see there.
        max_tokens: of a text; images have none.
    """
    if len(input_shape) == 3:
        return hf_image(num_classes, input_shape, folder, pretrained)
    return hf_text(num_classes, input_shape, folder, pretrained, max_tokens)
