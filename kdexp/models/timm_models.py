"""Every classifier of timm, by name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kdexp.models.layers import image_channels
from kdexp.models.pretrained_stem import adapt_image_size, check_name, check_runs

# Where else timm looks for weights, and where it writes what it fetches: addresses and folders that a configuration,
# which travels, is not to choose. In the overlay of a network's pretrained_cfg a file may be given: it is only read.
_SOURCES = ("pretrained_cfg", "cache_dir")
_OVERLAY_SOURCES = ("url", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "architecture", "tag")


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
        stem: "keep" or "small"; see `kdexp.models.pretrained_stem.adapt_image_size`.
        resize: height and width to which the images are interpolated first, or None.
        **options: passed to ``timm.create_model``, for example ``img_size`` and ``patch_size`` of a ViT; but not where
            weights are fetched from or kept.

    Returns:
        Maps (N, C, H, W) float to logits (N, num_classes).

    Raises:
        ValueError: an unknown name, options or inputs that the network does not take, or no way to get the weights.
    """
    import timm  # half a second, which all other models can do without

    _check_sources(options)
    if not (re.fullmatch(r"[\w.]+", name) and timm.is_model(name)):  # a name may be an address, too
        check_name("timm", name, timm.list_models())
    channels = image_channels(name, input_shape)
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **options
        )
    except TypeError as error:
        raise ValueError(f"options of {name} must be known to timm, got {options} ({error})") from error
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"weights of {name} must be plain ones of this network, got {reason}") from error
    except OSError as error:
        raise ValueError(
            f"pretrained=true needs timm's weights of {name}, which could not be downloaded ({error}): "
            "give a file with pretrained_cfg_overlay.file=FILE, or set weights to a file"
        ) from error
    adapt_image_size(model, name, stem, resize)
    check_runs(model, name, num_classes, input_shape)
    return model


def _check_sources(options: Mapping[str, Any]) -> None:
    overlay = options.get("pretrained_cfg_overlay") or {}
    given = [name for name in _SOURCES if name in options]
    given += [f"pretrained_cfg_overlay.{name}" for name in overlay if name in _OVERLAY_SOURCES]
    if given:
        raise ValueError(
            f"{given[0]} must not be set: published weights are timm's own, or a file that "
            "pretrained_cfg_overlay.file names"
        )


def without_sources(options: Mapping[str, object]) -> dict[str, object]:
    """The options of a network that gets all its weights from a file of ours: nothing of where others are."""
    overlay = options.get("pretrained_cfg_overlay")
    others = (*_OVERLAY_SOURCES, "file", "custom_load")
    kept = {name: value for name, value in options.items() if name not in (*_SOURCES, "checkpoint_path")}
    if isinstance(overlay, Mapping):
        kept["pretrained_cfg_overlay"] = {name: value for name, value in overlay.items() if name not in others}
    return kept
