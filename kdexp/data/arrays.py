"""Your own arrays: a npz file, a pair of npy files, or a parquet file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdexp.contracts import Source
from kdexp.data import own, parquet_file
from kdexp.naming import counted

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

log = logging.getLogger(__name__)

_INPUTS = ("x", "X", "inputs", "images", "data", "features")
_LABELS = ("y", "Y", "labels", "label", "targets", "target")
_PARTS = ("train", "val", "test")
_CHANNELS = (1, 3, 4)  # of an image: grey, RGB, RGBA


class _Part(NamedTuple):
    """One part of a data set as it is in a file.

    Attributes:
        inputs: (N, ...).
        labels: (N,) or (N, C).
        names: of the labels, where columns have them.
        place: where it comes from, for messages.
    """

    inputs: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None
    place: str


def load(
    file: str,
    data_dir: own.Folders = ".",
    inputs: str | Sequence[str] | None = None,
    labels: str | Sequence[str] | None = None,
    val: str | None = None,
    val_labels: str | None = None,
    test: str | None = None,
    test_labels: str | None = None,
    test_fraction: float = 0.2,
    layout: str = "auto",
) -> Source:
    """Read arrays. The files' forms are npz, npy (inputs, with the labels in a second one) and parquet.

    Args:
        file: of the training samples; a npz file may have those of val and test, too, under keys that begin with
            ``val_`` and ``test_`` or end with ``_val`` and ``_test``.
        data_dir: where files are looked for.
        inputs: of a npz file the key without ``train`` (x for x_train); of a parquet file the columns, or one column
            of lists of equal lengths. None: the one of x, X, inputs, images, data and features that is there; of a
            parquet file all columns but the labels.
        labels: likewise (y, Y, labels, label, targets, target); of npy files the file with them.
        val: file of the samples to choose by; None: those in `file`, else split off by `make_splits`.
        val_labels: the labels' npy file.
        test: file of the samples to test on; None: those in `file`, else split off, stratified by class.
        test_labels: the labels' npy file.
        test_fraction: in (0, 1), the fraction of the training samples that is split off.
        layout: of images: ``chw``, ``hwc``, or ``auto``: where the 1, 3 or 4 channels are.

    Returns:
        Inputs: images (N, C, H, W) of uint8 arrays (N, H, W), (N, H, W, C) or (N, C, H, W), float32 of float arrays of
        any shape, of which those of four dimensions are images, too. Targets: (N,) class numbers of labels (N,) or
        (N, 1), as words or whole numbers, and a multi-label task of labels (N, C) of 0 and 1.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a setting or an array breaks a rule: one line that names it.
    """
    if layout not in ("auto", "chw", "hwc"):
        raise ValueError(f"dataset.source.layout must be auto, chw or hwc, got {layout}")
    parts = _parts("file", file, data_dir, inputs, labels)
    if "train" not in parts:
        raise ValueError(f"dataset.source.file must have arrays to train on, got only {', '.join(parts)} in {file}")
    for name, path, its_labels in (("val", val, val_labels), ("test", test, test_labels)):
        if path is not None:
            found = _parts(name, path, data_dir, inputs, its_labels or labels)
            parts[name] = found.get(name) or found["train"]
    classes = _classes(parts["train"])
    loaded = {name: (_inputs(part, layout), _target(part, classes)) for name, part in parts.items()}
    if "test" not in loaded:
        x, y = loaded["train"]
        rest, held = own.split_off_test(y, test_fraction, "dataset.source.test_fraction")
        loaded |= {"train": (x[rest], y[rest]), "test": (x[held], y[held])}
    _tell(parts["train"], loaded, classes)
    names = own.names_worth_telling(classes) if classes else parts["train"].names
    return Source(*loaded["train"], *loaded["test"], val=loaded.get("val"), classes=names)


def _tell(part: _Part, loaded: Mapping[str, tuple[Tensor, Tensor]], classes: Sequence[str] | None) -> None:
    x, y = loaded["train"]
    sizes = ", ".join(f"{len(loaded[name][1]):,} {name}" for name in _PARTS if name in loaded)
    kind = "images (channels, height, width)" if x.dim() == 4 else "inputs"
    was = list(part.inputs.shape[1:])
    given = "" if was == list(x.shape[1:]) else f", given as {was}"
    told = f"{y.shape[1]} labels" if classes is None else f"{len(classes)} classes: {own.shown(classes)}"
    log.info(
        "%s: %s samples; %s %s of %s%s; %s", part.place, sizes, kind, list(x.shape[1:]), str(x.dtype)[6:], given, told
    )


# Files


def _parts(
    setting: str,
    file: str,
    data_dir: own.Folders,
    inputs: str | Sequence[str] | None,
    labels: str | Sequence[str] | None,
) -> dict[str, _Part]:
    """Part -> what a file has of it; ``train`` where it does not say of which part it is."""
    path = own.located(f"dataset.source.{setting}", file, data_dir)
    if path.suffix == ".npz":
        return _of_npz(path, _text("inputs", inputs), _text("labels", labels))
    if path.suffix == ".npy":
        name = f"{setting}_labels" if setting != "file" else "labels"
        if not isinstance(labels, str):
            raise ValueError(f"dataset.source.{name} must be the npy file of the labels of {path.name}, got {labels}")
        at = own.located(f"dataset.source.{name}", labels, data_dir)
        return {"train": _checked(_Part(_npy(path), _npy(at), None, str(path)))}
    if path.suffix == ".parquet":
        return {"train": _checked(_of_parquet(path, inputs, labels))}
    raise ValueError(f"dataset.source.{setting} must be a npz, npy or parquet file, got {path}")


def _text(setting: str, key: str | Sequence[str] | None) -> str | None:
    if key is None or isinstance(key, str):
        return key
    raise ValueError(f"dataset.source.{setting} must be one key of a npz file, got {list(key)}")


def _npy(path: Path) -> np.ndarray:
    array = _numpy(path)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"dataset.source: {path} must hold one array, got several")
    return array


def _numpy(path: Path) -> Any:
    try:
        return np.load(path)
    except (ValueError, OSError, EOFError) as error:  # objects, which would be unpickled; a file that is cut off
        raise ValueError(f"dataset.source: {path} must be a whole file of plain arrays, got: {error}") from error


def _of_npz(path: Path, inputs: str | None, labels: str | None) -> dict[str, _Part]:
    with _numpy(path) as file:
        own.check_unpacked(path, sum(entry.file_size for entry in file.zip.infolist()))
        keys = {
            part: (_key(file.files, inputs, _INPUTS, part), _key(file.files, labels, _LABELS, part))
            for part in ("", *_PARTS)
        }
        found = {part: pair for part, pair in keys.items() if None not in pair}
        if not found:
            wanted = [f"{setting}={key}" for setting, key in (("inputs", inputs), ("labels", labels)) if key]
            raise ValueError(
                f"dataset.source.inputs and dataset.source.labels must name arrays of {path.name} "
                f"({own.shown(file.files)}), got {' and '.join(wanted) or 'none, and none has a usual name'}"
            )
        if "" in found and "train" in found:
            raise ValueError(
                f"dataset.source.file must have one pair of training arrays, got {found['']} and {found['train']} in "
                f"{path.name}"
            )
        try:
            return {
                part or "train": _checked(_Part(file[x], file[y], None, f"{path} ({x}, {y})"))
                for part, (x, y) in found.items()
                if x is not None and y is not None
            }
        except ValueError as error:
            if not str(error).startswith("dataset."):
                raise ValueError(f"dataset.source: {path} must hold plain arrays, got: {error}") from error
            raise


def _key(keys: Sequence[str], given: str | None, usual: Sequence[str], part: str) -> str | None:
    names = usual if given is None else [given]
    forms = [form for name in names for form in ((f"{part}_{name}", f"{name}_{part}") if part else (name,))]
    return next((form for form in forms if form in keys), None)


def _of_parquet(path: Path, inputs: str | Sequence[str] | None, labels: str | Sequence[str] | None) -> _Part:
    table = parquet_file.read(path, "a npz or npy file")
    columns = {name: table.column(name) for name in table.column_names}
    if labels is None:
        labels = next((name for name in _LABELS if name in columns), None)
    if labels is None:
        raise ValueError(f"dataset.source.labels must name columns of {path.name} ({own.shown(columns)}), got none")
    targets = [labels] if isinstance(labels, str) else list(labels)
    names = [inputs] if isinstance(inputs, str) else [*(inputs or (name for name in columns if name not in targets))]
    for setting, wanted in (("labels", targets), ("inputs", names)):
        own.check_columns(f"dataset.source.{setting}", wanted, columns, path)
        for name in wanted:
            if columns[name].null_count:
                row = columns[name].is_null().to_pylist().index(True)
                raise ValueError(
                    f"dataset.source.{setting} must have a value in each row, got none in {name!r}, row {row} (from 0) "
                    f"of {path.name}"
                )
    x = [_column(path, name, columns[name]) for name in names]
    y = [columns[name].to_numpy() for name in targets]
    if len(x) > 1 and any(one.ndim > 1 for one in x):
        raise ValueError(f"dataset.source.inputs must be one column of lists or several of numbers, got {names}")
    if isinstance(labels, str):
        return _Part(x[0] if x[0].ndim > 1 else np.column_stack(x), y[0], None, str(path))
    return _Part(x[0] if x[0].ndim > 1 else np.column_stack(x), np.column_stack(y), targets, str(path))


def _column(path: Path, name: str, column: "ChunkedArray") -> np.ndarray:
    values = column.to_pylist() if str(column.type).startswith(("list", "fixed_size_list", "large_list")) else None
    try:
        array = column.to_numpy() if values is None else np.array(values)
        if array.dtype.kind in "biuf":
            return array.astype(np.float32)  # a column has no type that says whether it is an image or tokens
    except ValueError:  # lists of different lengths
        pass
    kind = getattr(column.type, "value_type", column.type) if values is None else column.type
    raise ValueError(
        f"dataset.source.inputs must name columns of numbers, or of lists of them of one length, got {name!r} of type "
        f"{kind} in {path.name}"
    )


# Arrays


def _checked(part: _Part) -> _Part:
    x, y = part.inputs, part.labels
    if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"dataset.source must have inputs (N, ...) and labels (N,) or (N, C), got {x.shape} and {y.shape} in "
            f"{part.place}"
        )
    return part._replace(labels=y[:, 0]) if y.ndim == 2 and y.shape[1] == 1 and part.names is None else part


def _inputs(part: _Part, layout: str) -> Tensor:
    x = part.inputs
    is_image = x.ndim == 4 or (x.ndim == 3 and x.dtype == np.uint8)
    if x.dtype.kind not in "fb" and not (x.dtype == np.uint8 and (is_image or x.ndim == 2)):
        raise ValueError(
            f"dataset.source.inputs must be floats, or images of uint8, got {x.dtype} of shape {x.shape} in "
            f"{part.place}: token ids have no network here; convert numbers with astype('float32')"
        )
    x = np.ascontiguousarray(_channels_first(x, part.place, layout) if is_image else x)
    tensor = torch.from_numpy(x) if x.dtype == np.uint8 and is_image else torch.from_numpy(x.astype(np.float32))
    if tensor.is_floating_point():
        broken = ~tensor.isfinite().flatten(1).all(1)
        if broken.any():
            raise ValueError(
                f"dataset.source.inputs must be finite, got NaN or Inf in {counted(int(broken.sum()), 'sample')} "
                f"of {part.place}, the first at {int(broken.int().argmax())}"
            )
    return tensor


def _channels_first(x: np.ndarray, place: str, layout: str) -> np.ndarray:
    """(N, C, H, W) of (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    if x.ndim == 3:
        return x[:, None]
    found = [name for name, at in (("chw", 1), ("hwc", 3)) if x.shape[at] in _CHANNELS]
    if layout == "auto" and len(found) != 1:
        raise ValueError(
            f"dataset.source.layout must be chw or hwc where the channels are not the only 1, 3 or 4, got auto for "
            f"images of shape {x.shape} in {place}"
        )
    return x if (found[0] if layout == "auto" else layout) == "chw" else np.moveaxis(x, 3, 1)


def _classes(part: _Part) -> list[str] | None:
    """Names of the classes; None of several labels a sample."""
    return None if part.labels.ndim == 2 else own.classes_of(_texts(part))


def _texts(part: _Part) -> list[str]:
    y = part.labels
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int((~np.isfinite(y)).argmax())
        raise ValueError(f"dataset.source.labels must be given for each sample, got {y[row]} at {row} of {part.place}")
    if y.dtype.kind == "f" and (y % 1 != 0).any():
        row = int((y % 1 != 0).argmax())
        raise ValueError(
            f"dataset.source.labels must be classes, as words or whole numbers, got {y[row]} at {row} of {part.place}"
        )
    if y.dtype.kind in "bf":
        y = y.astype(np.int64)
    return [value.decode() if isinstance(value, bytes) else str(value) for value in y.tolist()]


def _target(part: _Part, classes: Sequence[str] | None) -> Tensor:
    """See `kdexp.contracts.Kind`."""
    y = part.labels
    if classes is None or y.ndim == 2:
        if classes is not None or y.ndim != 2:
            raise ValueError(f"dataset.source.labels must be of one form in all parts, got {y.shape} in {part.place}")
        if y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
            wrong = y[~np.isin(y, (0, 1))][0]
            raise ValueError(
                f"dataset.source.labels must be 0 and 1 where a sample has several, got {wrong} in {part.place}"
            )
        if (y.sum(1) == 1).all():
            log.warning(
                "warning: dataset.source.labels: each sample of %s has exactly one of %d labels: for classes that "
                "exclude each other give numbers, y.argmax(1)",
                part.place,
                y.shape[1],
            )
        return torch.from_numpy(y.astype(np.float32))
    texts = _texts(part)
    target = own.numbered(texts, classes)
    if (target < 0).any():
        found = texts[int((target < 0).int().argmax())]
        raise ValueError(
            f"dataset.source.labels must have the classes of the training samples ({own.shown(classes)}), got "
            f"{found!r} in {part.place}"
        )
    return target
