"""A network of Hugging Face transformers, for images, masks or texts, from a folder: ``pip install 'kdexp[text]'``."""

from collections.abc import Sequence

from torch import nn

from kdexp.models.hf_folder import HFImage, classifier
from kdexp.models.hf_segmentation import hf_segmentation, segments
from kdexp.models.hf_text import hf_text


def huggingface(
    num_classes: int, input_shape: Sequence[int], folder: str, pretrained: bool = True, max_tokens: int = 128
) -> nn.Module:
    """What ``AutoModelForImageClassification`` makes of a folder.

    Of one of texts see `kdexp.models.hf_text.hf_text`, of one whose config.json names a network for segmentation
    `kdexp.models.hf_segmentation.hf_segmentation`.

    Nothing is fetched and none of the folder's code is run. Modules of an image classifier: ``network``, with the
    module paths of transformers.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width) of images, (characters) of texts.
        folder: with config.json and model.safetensors, as ``save_pretrained`` writes them. A classifier in it must have
            as many labels; that of a backbone alone begins at random.
        pretrained: begin with the weights of the folder, which are of as many channels. Else they are random.
        max_tokens: of a text; images have none.

    Returns:
        Maps (N, C, H, W) float, or (N, L) code points, to logits (N, num_classes), or (N, num_classes, H, W).

    Raises:
        ValueError: the library is not installed, or the folder breaks a rule: one line.
    """
    if len(input_shape) != 3:
        return hf_text(num_classes, input_shape, folder, pretrained, max_tokens)
    if segments(folder):
        return hf_segmentation(folder, num_classes, input_shape, pretrained)
    sizes = {"num_channels": int(input_shape[0])}
    what = "an image classifier"
    network = classifier(num_classes, folder, "ForImageClassification", what, pretrained=pretrained, sizes=sizes)
    return HFImage(network)
