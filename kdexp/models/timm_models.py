"""Every classifier of timm, by name."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdexp.models.adapt import adapt_image_size, check_name, check_runs
from kdexp.models.layers import image_channels


def timm_model(
    num_classes: int,
    input_shape: Sequence[int],
    name: str = "resnet18",
    pretrained: bool = False,
    stem: str = "keep",
    resize: int | None = None,
    **options: Any,
) -> nn.Module:
    """A classifier of timm, with timm's module paths.

    Args:
        num_classes: outputs of the network.
        input_shape: (channels, height, width).
        name: as in ``timm.list_models()``, with or without the tag of its weights (``resnet18.a1_in1k``).
        pretrained: begin with the published weights, which expect their own mean and std. timm fits the first
            convolution to the channels; the last layer begins at random when the number of classes differs.
        stem: "keep" or "small"; see `kdexp.models.adapt.adapt_image_size`.
        resize: height and width to which the images are interpolated first, or None.
        **options: passed to ``timm.create_model``, for example ``img_size`` and ``patch_size`` of a ViT.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: an unknown name, options or inputs that the network does not take, or no way to get the weights.
    """
    import timm  # half a second, which all other models can do without

    if not timm.is_model(name):
        check_name("timm", name, timm.list_models())
    channels = image_channels(name, input_shape)
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **options
        )
    except TypeError as error:
        raise ValueError(f"options of {name} must be known to timm, got {options} ({error})") from error
    except OSError as error:
        raise ValueError(
            f"pretrained=true needs timm's weights of {name}, which could not be downloaded ({error}): "
            "give a file with pretrained_cfg_overlay.file=FILE, or set weights to a file"
        ) from error
    adapt_image_size(model, name, stem, resize)
    check_runs(model, name, num_classes, input_shape)
    return model
