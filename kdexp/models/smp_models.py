"""Every network of segmentation_models_pytorch, by name: ``pip install 'kdexp[smp]'``."""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from kdexp.models.dense import check_dense, pad_to_multiple
from kdexp.models.layers import image_channels

# Of a network's own options: what the data set says; what makes something else of its logits, or more than logits;
# and where weights are fetched from, which a configuration, which travels, is not to choose.
_OURS = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs")


def smp_model(
    num_classes: int,
    input_shape: Sequence[int],
    name: str = "unet",
    encoder: str = "resnet18",
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """A network of segmentation_models_pytorch, with its module paths: encoder, decoder, segmentation_head.

    Args:
        num_classes: outputs of the network; 1 for a binary task.
        input_shape: (channels, height, width).
        name: the architecture: unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus, pan, upernet,
            segformer or dpt.
        encoder: as in ``segmentation_models_pytorch.encoders.get_encoder_names()``, or ``tu-NAME`` for a network of
            timm.
        pretrained: begin with an encoder trained on ImageNet, which expects its own mean and std; the library fits its
            first convolution to the channels. Else all weights are random, and nothing is downloaded.
        **options: of the architecture's constructor, for example ``decoder_channels``.

    Returns:
        Maps (N, C, H, W) float of any size to logits (N, num_classes, H, W). It sees the image padded at the right and
        at the bottom to a multiple of the encoder's stride; the logits are cut off.

    Raises:
        ValueError: the library is not installed; an unknown name, options or inputs that the network does not take, or
            no way to get the weights.
    """
    smp = _library()
    architectures = smp.MODEL_ARCHITECTURES_MAPPING
    if name not in architectures:
        raise ValueError(f"name must be one of {', '.join(architectures)}, got {name!r}")
    _check_encoder(smp, encoder)
    channels = image_channels(name, input_shape)
    allowed = [option for option in inspect.signature(architectures[name]).parameters if option not in _OURS]
    if not set(options) <= set(allowed):
        raise ValueError(f"options of {name} must be of {', '.join(allowed)}, got {options}")
    model = _build(smp, name, encoder, pretrained, channels, num_classes, options)
    check_dense(model, f"{name} with {encoder}", num_classes, input_shape)
    return model


class AnySize(nn.Module):
    """A network of the library that takes images of any size; its modules keep the library's paths.

    Args:
        network: with an encoder, a decoder and a segmentation head.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.segmentation_head = network.segmentation_head
        self._stride = int(network.encoder.output_stride)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes, H, W)."""
        height, width = images.shape[-2:]
        found = self.encoder(pad_to_multiple(images, self._stride))
        maps = self.decoder(*found) if isinstance(found, tuple) else self.decoder(found)  # dpt's gives tokens, too
        logits: Tensor = self.segmentation_head(maps)[..., :height, :width]
        return logits


def _library() -> ModuleType:
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        rule = "must be installed to build its networks: pip install 'kdexp[smp]'"
        raise ValueError(f"segmentation_models_pytorch {rule}") from error


def _check_encoder(smp: ModuleType, encoder: str) -> None:
    import timm

    of_timm = encoder.removeprefix("tu-")
    is_timms = encoder.startswith("tu-") and re.fullmatch(r"[\w.]+", of_timm) and timm.is_model(of_timm)
    if not is_timms and encoder not in smp.encoders.get_encoder_names():  # a name may be an address, too
        rule = "must be one of segmentation_models_pytorch.encoders.get_encoder_names(), or tu-NAME of timm"
        raise ValueError(f"encoder {rule}, got {encoder!r}")


def _build(
    smp: ModuleType,
    name: str,
    encoder: str,
    pretrained: bool,
    channels: int,
    num_classes: int,
    options: Mapping[str, Any],
) -> nn.Module:
    published = True if encoder.startswith("tu-") else "imagenet"
    weights = published if pretrained else None
    try:
        return AnySize(smp.create_model(name, encoder, weights, in_channels=channels, classes=num_classes, **options))
    except OSError as error:
        raise ValueError(
            f"pretrained=true needs the weights of {encoder}, which could not be downloaded ({error}): set weights to "
            "a file"
        ) from error
    except Exception as error:  # it has many ways of refusing
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} must take {encoder} and its options, got {dict(options)} ({reason})") from error
