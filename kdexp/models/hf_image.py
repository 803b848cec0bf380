"""An image classifier of Hugging Face transformers, from a local folder: ``pip install 'kdexp[text]'``."""

from collections.abc import Sequence

from torch import Tensor, nn

from kdexp.models.hf_folder import class_names, classifier
from kdexp.models.layers import image_channels


def hf_image(num_classes: int, input_shape: Sequence[int], folder: str, pretrained: bool = True) -> nn.Module:
    """What ``AutoModelForImageClassification`` makes of a folder; nothing is fetched and none of its code is run.

    Modules: ``network``, with the module paths of transformers.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width).
        folder: with config.json and model.safetensors, as ``save_pretrained`` writes them. A classifier in it must
            have as many labels; that of a backbone alone begins at random.
        pretrained: begin with the weights of the folder, which are of as many channels. Else they are random.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: the library is not installed, or the folder breaks a rule: one line.
    """
    sizes = {"num_channels": image_channels("hf_image", input_shape)}
    network = classifier(
        num_classes, folder, "ForImageClassification", "an image classifier", pretrained=pretrained, sizes=sizes
    )
    return HFImage(network)


class HFImage(nn.Module):
    """See `hf_image`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.class_names = class_names(network)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        logits: Tensor = self.network(pixel_values=inputs).logits
        return logits
