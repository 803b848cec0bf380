"""Every network of torchvision for semantic segmentation, by name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision import models

from kdexp.models.dense import check_dense
from kdexp.models.layers import image_channels
from kdexp.models.pretrained_stem import first_convolution, replace_convolution

_PRETRAINED_CLASSES = 21


def torchvision_segmentation(
    num_classes: int,
    input_shape: Sequence[int],
    name: str = "lraspp_mobilenet_v3_large",
    pretrained: bool = False,
) -> nn.Module:
    """A DeepLabV3, FCN or LR-ASPP of torchvision, with torchvision's module paths (``backbone``, ``classifier``).

    Torchvision's network returns a mapping; here it is the logits "out" alone, which torchvision resizes to the size of
    the image (bilinear, align_corners=False). The auxiliary classifier is left out.

    Args:
        num_classes: outputs of the network; 1 for a binary task.
        input_shape: (channels, height, width); with other than 3 channels the first convolution is made anew.
        name: as in ``torchvision.models.list_models(module=torchvision.models.segmentation)``.
        pretrained: begin with torchvision's default weights (COCO with the 21 classes of Pascal VOC), which expect
            ImageNet's mean and std. Layers that are made anew (the last ones unless num_classes is 21, a first one that
            is changed) begin at random.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes, H, W). In training DeepLabV3 needs two images a batch.

    Raises:
        ValueError: an unknown name, inputs that the network does not take, or no way to get the weights.
    """
    names = models.list_models(module=models.segmentation)
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}, got {name!r}")
    channels = image_channels(name, input_shape)
    model = _pretrained(name, num_classes) if pretrained else _fresh(name, num_classes)
    model.aux_classifier = None  # type: ignore[assignment]
    path, conv = first_convolution(model)
    if channels != conv.in_channels:
        replace_convolution(model, path, conv, in_channels=channels)
    # A hook and not a wrapper, which would put a prefix before each parameter's name.
    model.register_forward_hook(_out)
    check_dense(model, name, num_classes, input_shape)
    return model


def _out(_: nn.Module, inputs: tuple[Tensor], output: dict[str, Tensor]) -> Tensor:
    return output["out"]


def _fresh(name: str, num_classes: int) -> nn.Module:
    model: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
    return model


def _pretrained(name: str, num_classes: int) -> nn.Module:
    try:
        model: nn.Module = models.get_model(name, weights="DEFAULT", progress=False)
    except OSError as error:
        url = models.get_model_weights(name).DEFAULT.url
        raise ValueError(
            f"pretrained=true needs {url}, which could not be downloaded ({error}): put the file into "
            f"{torch.hub.get_dir()}/checkpoints, or set weights to a file"
        ) from error
    if num_classes != _PRETRAINED_CLASSES:
        for path, last in list(model.named_modules()):
            is_last = isinstance(last, nn.Conv2d) and last.out_channels == _PRETRAINED_CLASSES
            if is_last and path.startswith("classifier."):
                replace_convolution(model, path, last, out_channels=num_classes)
    return model
