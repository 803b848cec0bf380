"""What a configuration leaves to the data: kind, number of classes, shape of a sample, mean and std.

The settings of conf/dataset that say ``${kdexp.inferred:NAME}`` are filled in from here when they are first read,
before a network is built. The data that were loaded for it are those that are then trained on: they are read once.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdexp.config import trust
from kdexp.config.require import Values
from kdexp.contracts import Kind, Source
from kdexp.data.splits import are_masks, check_source, train_and_val_index
from kdexp.data.texts import are_texts

_CHUNK = 4096  # samples that are float64 at the same time


@dataclass
class _Read:
    """A data set that was loaded.

    Attributes:
        source: itself, until somebody takes it.
        found: what is known of it, by name; the statistics by their split, too.
    """

    source: Source | None
    found: dict[object, object] = field(default_factory=dict)


_read: dict[str, _Read] = {}


def inferred(name: str, settings: Values, *, val_fraction: float, split_seed: int, unread: object = None) -> object:
    """What the data say of a setting of conf/dataset.

    Args:
        name: ``kind`` (multilabel or multiclass), ``num_classes``, ``input_shape``, ``mean`` or ``std``. The last two
            are of the training split before it is reduced to a subset, a value for each channel of images (C, H, W)
            (uint8 as a fraction of 255), for each feature (the last dimension) of anything else, to six digits; a
            feature that does not vary has std 1.
        settings: ``dataset.source``, plain values.
        val_fraction: see `train_and_val_index`.
        split_seed: see there.
        unread: mean or std of images that are read one at a time; None: they must be given.

    Raises:
        ValueError: the data break a rule: one line.
        FileNotFoundError: they are not where the settings say.
    """
    key = _key(settings)
    read = _read.get(key)
    if read is None or "kind" not in read.found:
        read = _load(settings)
    wanted = (name, val_fraction, split_seed) if name in ("mean", "std") else name
    if wanted not in read.found:
        source = read.source or loaded(settings)
        if unread is not None and not isinstance(source.train_inputs, Tensor):
            return unread
        mean, std = _statistics(source, val_fraction, split_seed)
        read.found |= {("mean", val_fraction, split_seed): mean, ("std", val_fraction, split_seed): std}
    return read.found[wanted]


def loaded(settings: Values) -> Source:
    """A data set, loaded now.

    Args:
        settings: ``dataset.source``, plain values.

    Raises:
        ValueError: the data break a rule: one line.
        FileNotFoundError: they are not where the settings say.
    """
    trust.find(settings.get("_target_"), "source", "dataset.source.")  # here the setting has its full name
    source = trust.build(settings, "source")
    if not isinstance(source, Source):
        raise ValueError(f"dataset.source must give a kdexp.contracts.Source, got {type(source).__name__}")
    return source


def peek(settings: Values) -> Source:
    """The data set, loaded now unless it was before; it is kept for whoever takes it, and no other one is."""
    key = _key(settings)
    read = _read.get(key)
    if read is None or read.source is None:
        forget(samples_only=True)
        read = _read.setdefault(key, _Read(None))
        read.source = loaded(settings)
    return read.source


def take(settings: Values) -> Source:
    """The data set, as it was loaded to fill in settings; it is not kept here any longer. Else see `loaded`."""
    read = _read.get(_key(settings))
    if read is None or read.source is None:
        return loaded(settings)
    source, read.source = read.source, None
    return source


def forget(*, samples_only: bool = False) -> None:
    """Keep no data set, and nothing that is known of one unless only the samples are to be forgotten."""
    for read in _read.values():
        read.source = None
    if not samples_only:
        _read.clear()


def _key(settings: Values) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def _load(settings: Values) -> _Read:
    source = peek(settings)
    if are_masks(source.train_target):
        return _of_masks(settings, source)
    target = source.train_target
    if not isinstance(target, Tensor) or target.dim() not in (1, 2) or len(source.train_inputs) == 0:
        check_source(source, "multiclass", 0, None)  # says what is wrong with it
    kind: Kind = "multilabel" if target.dim() == 2 else "multiclass"
    num_classes = target.shape[1] if target.dim() == 2 else len(source.classes or set(target.tolist()))
    shape = list(source.train_inputs[0].shape)
    check_source(source, kind, num_classes, shape)
    read = _read[_key(settings)]
    read.found |= {"kind": kind, "num_classes": num_classes, "input_shape": shape}
    return read


def _of_masks(settings: Values, source: Source) -> _Read:
    if source.classes is None:
        raise ValueError("dataset.num_classes must be given for masks whose classes have no names, got nothing")
    read = _read[_key(settings)]
    shape = list(source.train_inputs[0].shape)
    read.found |= {"kind": "multiclass", "num_classes": len(source.classes), "input_shape": shape}
    return read


def _statistics(source: Source, val_fraction: float, split_seed: int) -> tuple[list[float], list[float]]:
    inputs = source.train_inputs
    if are_texts(inputs):
        return [0.0], [1.0]
    if are_masks(source.train_target):
        raise ValueError("dataset.mean and dataset.std must be given for images with masks, got nothing")
    if not isinstance(inputs, Tensor):
        raise ValueError(
            "dataset.mean and dataset.std must be given for data that are read one sample at a time, got nothing"
        )
    index = torch.arange(len(inputs))
    if source.val is None:
        index, _ = train_and_val_index(source.train_target, val_fraction, split_seed)
    count = len(index) * inputs[0].numel() // _values(inputs[:1]).shape[1]
    mean = torch.stack([chunk.sum(0) for chunk in _chunks(inputs, index)]).sum(0) / count
    variance = torch.stack([(chunk - mean).square().sum(0) for chunk in _chunks(inputs, index)]).sum(0) / count
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return _rounded(mean), _rounded(std)


def _chunks(inputs: Tensor, index: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(index), _CHUNK):
        yield _values(inputs[index[start : start + _CHUNK]])


def _values(inputs: Tensor) -> Tensor:
    """(values, channels or features) float64."""
    inputs = inputs.double() / 255 if inputs.dtype == torch.uint8 else inputs.double()
    return (inputs.movedim(1, -1) if inputs.dim() == 4 else inputs).flatten(0, -2)


def _rounded(values: Tensor) -> list[float]:
    """So that neither another processor's rounding nor a float's last digits make it another experiment."""
    return [float(f"{value:.6g}") for value in values.tolist()]
