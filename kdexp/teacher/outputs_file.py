"""Files of predictions: npy, safetensors and parquet, read as numbers and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdexp.atomic import atomic_path
from kdexp.contracts import SplitName

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema
    from pyarrow.parquet import FileMetaData

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
_INDEX = ".index"
_BYTES = 32  # of a value in a parquet file, at most, but for what a file has once
_ROWS = 65536  # of a parquet file that are read at once


@dataclass(frozen=True)
class Table:
    """Predictions for samples of one part of a data set.

    Attributes:
        index: (n,) int64, the samples' ids; None: row i is sample i of the part.
        values: (n, C) float, perhaps of a file that is read where it is looked at.
    """

    index: Tensor | None
    values: Tensor


def read(path: Path, samples: int, outputs: int) -> dict[str, Table]:
    """The tables in a file, by split.

    - ``.npy``: one array (N, C), of the training samples in the data set's order.
    - ``.safetensors``: tensors ``train``, ``val``, ``test``, (N, C) each; beside one of them ``train.index`` and so on,
      (N,) int64, where not all samples are there in their order.
    - ``.parquet``: a column ``index``, perhaps a column ``split``, and the predictions, as one column of lists or as a
      column for each class, in the classes' order.

    Args:
        path: of the file.
        samples: of the whole data set; a file with more rows is not read.
        outputs: of each; a file with more is not read.

    Raises:
        ValueError: it is not such a file; the message begins with what has to be.
    """
    if path.is_file() and path.suffix == ".npy":
        return _of_npy(path)
    if path.is_file() and path.suffix == ".safetensors":
        return _of_safetensors(path)
    if path.is_file() and path.suffix == ".parquet":
        return _of_parquet(path, samples, outputs)
    raise ValueError(f"must be an existing npy, safetensors or parquet file, got {path}")


def write(path: Path, tables: Mapping[str, Table]) -> None:
    """Write tables as .safetensors, for `read`, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: table.values.float().contiguous() for name, table in tables.items()}
    tensors |= {f"{name}{_INDEX}": table.index for name, table in tables.items() if table.index is not None}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def _of_npy(path: Path) -> dict[str, Table]:
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:  # objects, which would be unpickled; a file that is cut off
        raise ValueError(f"must be a whole npy file of plain numbers, got {path}: {error}") from error
    if not isinstance(array, np.ndarray):  # an archive by this name
        raise ValueError(f"must be a npy file of one array, got {path}")
    return {"train": Table(None, _numbers(array, path))}


def _numbers(array: NDArray[np.generic], path: Path) -> Tensor:
    if array.dtype.kind != "f":
        raise ValueError(f"must hold floats, got {array.dtype} in {path}")
    kind = np.float64 if array.dtype.itemsize > 4 else np.float32
    # A view of the file where it can be one; torch's tensors are of the machine's own order of bytes, and writable.
    return torch.from_numpy(np.require(array, kind, ["C", "W"]))


def _of_safetensors(path: Path) -> dict[str, Table]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"must be a whole safetensors file, got {path}: {error}") from error
    known = {f"{split}{end}" for split in SPLITS for end in ("", _INDEX)}
    other = next((name for name in tensors if name not in known), None)
    if other is not None or not tensors.keys() & set(SPLITS):
        raise ValueError(f"must hold tensors train, val or test (and train.index, ...), got {other} in {path}")
    found: dict[str, Table] = {}
    for split in SPLITS:
        if split in tensors:
            values, index = tensors[split], tensors.get(f"{split}{_INDEX}")
            if not values.is_floating_point():
                raise ValueError(f"must hold floats, got {values.dtype} of {split} in {path}")
            if index is not None and index.dtype != torch.int64:
                raise ValueError(f"must hold ids of int64, got {index.dtype} of {split}{_INDEX} in {path}")
            found[split] = Table(index, values)
    return found


def _of_parquet(path: Path, samples: int, outputs: int) -> dict[str, Table]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        rule = "must be a npy or safetensors file unless pyarrow is installed (pip install 'kdexp[parquet]')"
        raise ValueError(f"{rule}, got {path}") from error
    index: list[NDArray[np.int64]] = []
    splits: list[NDArray[np.object_]] = []
    values: list[NDArray[np.float64]] = []
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow, path)
            _check_size(file.metadata, samples, outputs, path)
            for batch in file.iter_batches(_ROWS):
                index.append(batch.column("index").to_numpy(zero_copy_only=False))
                if "split" in batch.schema.names:
                    splits.append(np.array(batch.column("split").to_pylist(), object))
                values.append(_predictions(batch, columns, path))
    except (ArrowException, OSError) as error:
        raise ValueError(f"must be a whole parquet file, got {path}: {str(error).splitlines()[0]}") from error
    if not index:
        raise ValueError(f"must have rows, got none in {path}")
    ids, rows = np.concatenate(index), np.concatenate(values)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"must have a whole number as index in each row, got {ids.dtype} in {path}")
    named = np.concatenate(splits) if splits else np.full(len(ids), "train", object)
    unknown = [name for name in dict.fromkeys(named.tolist()) if name not in SPLITS]
    if unknown:
        raise ValueError(f"must have train, val or test as split, got {unknown[0]} in {path}")
    return {
        split: Table(torch.from_numpy(ids[of].astype(np.int64)), torch.from_numpy(rows[of]))
        for split in SPLITS
        if (of := named == split).any()
    }


def _check_size(said: "FileMetaData", samples: int, outputs: int, path: Path) -> None:
    """A few bytes can stand for any number of values: what the file says of them is looked at before it is read."""
    if said.num_rows > samples:
        raise ValueError(f"must have at most {samples} rows, got {said.num_rows} in {path}")
    for group in (said.row_group(number) for number in range(said.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            values, size = column.num_values, column.total_uncompressed_size
            if values > group.num_rows * outputs or size > _BYTES * values + 2**20:
                rule = f"must have {outputs} numbers in each row"
                raise ValueError(f"{rule}, got {values} of {size} bytes in {group.num_rows} rows of {path}")


def _columns(schema: "Schema", path: Path) -> list[str]:
    """The columns with predictions: one of lists, or one for each class."""
    names = [name for name in schema.names if name not in ("index", "split")]
    if "index" not in schema.names or not names:
        rule = "must have a column index and columns of predictions"
        raise ValueError(f"{rule}, got {', '.join(schema.names) or 'none'} in {path}")
    lists = [name for name in names if str(schema.field(name).type).startswith(("list", "fixed_size_list", "large_"))]
    if lists and len(names) > 1:
        raise ValueError(f"must have one column of lists, or one for each class, got {', '.join(names)} in {path}")
    return names


def _predictions(batch: "RecordBatch", columns: list[str], path: Path) -> NDArray[np.float64]:
    """(n, C) of a batch of rows."""
    try:
        each = [np.array(batch.column(name).to_pylist(), np.float64) for name in columns]
    except (ValueError, TypeError) as error:  # lists of different lengths, words
        raise ValueError(f"must have as many numbers in each row, got {path}: {error}") from error
    return np.stack(each, 1) if each[0].ndim == 1 else each[0]
