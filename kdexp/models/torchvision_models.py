"""Every classifier of torchvision, by name."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torchvision import models

from kdexp.models.layers import image_channels
from kdexp.models.pretrained_stem import (
    adapt_image_size,
    check_name,
    check_runs,
    first_convolution,
    replace_convolution,
)

# These return more than logits in training, unless their auxiliary classifiers are taken away.
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def torchvision_model(
    num_classes: int,
    input_shape: Sequence[int],
    name: str = "resnet18",
    pretrained: bool = False,
    stem: str = "keep",
    resize: int | None = None,
    **options: object,
) -> nn.Module:
    """A classifier of torchvision, with torchvision's module paths (``layer1``, ``avgpool``, ``fc``, ...).

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width); with other than 3 channels the first convolution is made anew.
        name: as in ``torchvision.models.list_models(module=torchvision.models)``.
        pretrained: begin with torchvision's default ImageNet weights, which expect their own mean and std. Layers that
            are made anew (the last one unless num_classes is 1000, a first one that is changed) begin at random.
        stem: "keep" or "small"; see `kdexp.models.pretrained_stem.adapt_image_size`.
        resize: height and width to which the images are interpolated first, or None.
        **options: passed to torchvision's own constructor, for example ``image_size`` of vit_b_16.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: an unknown name, options or inputs that the network does not take, or no way to get the weights.
    """
    check_name("torchvision", name, models.list_models(module=models))
    channels = image_channels(name, input_shape)
    try:
        model = _pretrained(name, num_classes, options) if pretrained else _fresh(name, num_classes, options)
    except TypeError as error:
        raise ValueError(f"options of {name} must be known to torchvision, got {options} ({error})") from error
    path, conv = first_convolution(model)
    if channels != conv.in_channels:
        replace_convolution(model, path, conv, in_channels=channels)
    adapt_image_size(model, name, stem, resize)
    check_runs(model, name, num_classes, input_shape)
    return model


def _fresh(name: str, num_classes: int, options: Mapping[str, object]) -> nn.Module:
    if name in _WITH_AUXILIARY:
        options = {"aux_logits": False, "init_weights": True, **options}
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def _pretrained(name: str, num_classes: int, options: Mapping[str, object]) -> nn.Module:
    try:
        model: nn.Module = models.get_model(name, weights="DEFAULT", progress=False, **options)
    except OSError as error:
        url = models.get_model_weights(name).DEFAULT.url
        raise ValueError(
            f"pretrained=true needs {url}, which could not be downloaded ({error}): put the file into "
            f"{torch.hub.get_dir()}/checkpoints, or set weights to a file"
        ) from error
    if isinstance(model, models.Inception3):  # torchvision takes googlenet's away itself
        model.aux_logits, model.AuxLogits = False, None
    path, last = [(p, m) for p, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    if num_classes == 1000:
        return model
    if isinstance(last, nn.Conv2d):
        replace_convolution(model, path, last, out_channels=num_classes)
    else:
        model.set_submodule(path, nn.Linear(last.in_features, num_classes))
    return model
