"""Fitting published ImageNet networks to other images and classes."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from kdexp.models.complexity import dry_run


def check_name(library: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that the library does not have, and say which come close.

    Raises:
        ValueError: the name is not known.
    """
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=5)
        raise ValueError(
            f"name must be a classifier of {library}"
            + (f" (did you mean {', '.join(close)}?)" if close else "")
            + f", got {name!r}"
        )


def replace_convolution(model: nn.Module, path: str, conv: nn.Conv2d, **changes: int) -> None:
    """Put a new convolution in the place of `conv` at `path`: the same but for `changes`."""
    own = {key: getattr(conv, key) for key in ("in_channels", "out_channels", "kernel_size", "stride", "padding")}
    model.set_submodule(path, nn.Conv2d(**{**own, "bias": conv.bias is not None, **changes}))


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The convolution that reads the image, and its path."""
    return next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))


def adapt_image_size(model: nn.Module, name: str, stem: str, resize: int | None) -> None:
    """Fit a network made for 224 x 224 pixels to other sizes, in place.

    The paths of its parameters stay the library's own.

    Args:
        model: the network.
        name: its name, for messages.
        stem: "keep"; or "small": the first convolution becomes 3x3 with stride 1, and the max-pooling that follows it
            is left out (Chen et al. 2020, SimCLR, appendix B.9).
        resize: height and width to which the images are interpolated first, or None.

    Raises:
        ValueError: another stem, one that this network does not have, or a size below 1.
    """
    if stem not in ("keep", "small"):
        raise ValueError(f"stem must be keep or small, got {stem}")
    if stem == "small":
        _shrink_stem(model, name)
    if resize is not None:
        model.register_forward_pre_hook(resizing(resize))


def resizing(size: int) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    """A forward pre-hook that interpolates images (N, C, H, W) to (N, C, size, size).

    (A hook and not a wrapper, which would put a prefix before each parameter's name.)

    Raises:
        ValueError: the size is no whole number of pixels, 1 or more.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"resize must be null or at least 1 pixel, got {size}")
    return partial(_resize, size)


def _shrink_stem(model: nn.Module, name: str) -> None:
    path, conv = first_convolution(model)
    if conv.stride == (1, 1):
        raise ValueError(f"stem=small needs a network that begins with a strided convolution, got {name}")
    replace_convolution(model, path, conv, kernel_size=3, stride=1, padding=1)
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    following, layer = layers[1]
    if isinstance(layer, nn.MaxPool2d):
        model.set_submodule(following, nn.Identity())


def _resize(size: int, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return F.interpolate(inputs[0], size=(size, size), mode="bilinear", antialias=True)


def check_runs(model: nn.Module, name: str, num_classes: int, input_shape: Sequence[int]) -> None:
    """Find out before any training whether a network takes the data.

    Raises:
        ValueError: it does not, or does not return logits.
    """
    rule = f"{name} must take input_shape {list(input_shape)} (resize=SIZE rescales images)"
    try:
        logits = dry_run(model, input_shape)
    except Exception as error:  # each network has its own way of refusing
        raise ValueError(f"{rule}, got {' '.join(str(error).split()) or type(error).__name__}") from error
    if getattr(logits, "shape", None) != (1, num_classes):
        raise ValueError(f"{name} must return {num_classes} logits, got {getattr(logits, 'shape', type(logits))}")
