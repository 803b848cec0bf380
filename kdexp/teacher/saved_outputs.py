"""A teacher of which nothing is left but what it said: predictions of anything, from a file, by sample id."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdexp.atomic import sha256
from kdexp.contracts import Kind, Split, SplitName, Splits
from kdexp.teacher.outputs_file import Table, read
from kdexp.teacher.probabilities import check_holds, kind_of, logits_of, wrong_rows

_CHUNK = 8192


class SavedOutputs(nn.Module):
    """Predictions in the place of a network. Before it says anything, `bind` has to be called.

    As a network it has no parameters, and a buffer that is a digest of its file: so it is known by what it says.
    All of that goes through its module ``rows``.

    Args:
        num_classes: outputs of a sample.
        input_shape: of one sample; nothing is made of it.
        file: see `kdexp.teacher.outputs_file.read`.
        holds: ``logits`` or ``probabilities``, see `kdexp.teacher.probabilities`.
        kind: what a row of them means.

    Raises:
        ValueError: no such file, or another word.
    """

    of_known_samples = True
    content: Tensor
    rows: nn.Identity

    def __init__(
        self, num_classes: int, input_shape: Sequence[int], file: str, holds: str, kind: Kind = "multiclass"
    ) -> None:
        super().__init__()
        check_holds(holds)
        self._file = Path(file)
        if not self._file.is_file():
            raise ValueError(f"file must be an existing npy, safetensors or parquet file, got {file}")
        self._outputs, self._holds, self._kind = num_classes, holds, kind_of(kind, num_classes)
        said = hashlib.sha256(f"{sha256(self._file)} {holds}".encode()).digest()
        self.register_buffer("content", torch.tensor(list(said), dtype=torch.uint8))
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        self.rows = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Nothing but shapes.

        Raises:
            ValueError: there are values in (N, ...) inputs.
        """
        if inputs.is_meta:
            return inputs.new_empty(len(inputs), self._outputs)
        raise ValueError(f"teacher must be a network here, got outputs of known samples in {self._file}")

    def bind(self, splits: Splits, setting: str) -> None:
        """Read the file, and see that its rows are those of a data set.

        Args:
            splits: of the data set.
            setting: the teacher's, for messages.

        Raises:
            ValueError: they are not: other numbers or ids of samples, or of classes; NaN or Inf; no probabilities; no
                outputs of a sample that is learned from.
        """
        own_val = splits.val.inputs is not splits.train.inputs
        parts = {"train": splits.train, "test": splits.test, **({"val": splits.val} if own_val else {})}
        sizes = {name: len(part.inputs) for name, part in parts.items()}
        try:
            tables = read(self._file, sum(sizes.values()), self._outputs)
            if not own_val and "val" in tables:  # samples of the training file, too
                both = [_with_ids(tables[name]) for name in ("train", "val") if name in tables]
                tables["train"] = Table(*(torch.cat(each) for each in zip(*both, strict=True)))
                del tables["val"]
            for name, table in tables.items():
                if name not in parts:
                    raise ValueError(f"must hold no {name} where the data set has none, got {self._file}")
                self._check(name, table, sizes[name])
                place = torch.full((sizes[name],), -1, dtype=torch.int64)
                ids = torch.arange(len(table.values)) if table.index is None else table.index
                place[ids] = torch.arange(len(ids))
                self._found[name] = place, table.values
            if not own_val and "train" in self._found:
                self._found["val"] = self._found["train"]
            missing = self.missing("train", splits.train)
            if missing:
                total = len(splits.train)
                rule = "must hold the outputs of all samples that are learned from"
                raise ValueError(f"{rule}, got {total - missing} of {total} in {self._file}")
        except ValueError as error:
            raise ValueError(f"{setting}.file {error}") from error

    def _check(self, name: str, table: Table, size: int) -> None:
        values, where = table.values, f"of {name} in {self._file}"
        if values.dim() != 2 or values.shape[1] != self._outputs:
            raise ValueError(f"must hold {self._outputs} outputs of each sample, got shape {[*values.shape]} {where}")
        if table.index is None:
            if len(values) != size:
                raise ValueError(f"must have a row for each of the {size} samples, got {len(values)} {where}")
        elif table.index.shape != (len(values),):
            raise ValueError(f"must have an id for each row, got {[*table.index.shape]} ids {where}")
        elif len(table.index) and not 0 <= int(table.index.min()) <= int(table.index.max()) < size:
            wrong = table.index[(table.index < 0) | (table.index >= size)][0]
            raise ValueError(f"must have ids from 0 to {size - 1}, got {int(wrong)} {where}")
        elif len(table.index) and (counts := table.index.bincount()).max() > 1:
            raise ValueError(f"must have each id once, got {int(counts.argmax())} again {where}")
        for start in range(0, len(values), _CHUNK):
            self._check_rows(values[start : start + _CHUNK].double(), start, where)

    def _check_rows(self, rows: Tensor, start: int, where: str) -> None:
        wrong, rule = ~rows.float().isfinite().all(1), "must hold numbers that are neither NaN nor Inf"
        if self._holds == "probabilities" and not wrong.any():
            wrong, rule = wrong_rows(rows, self._kind)
        if wrong.any():
            row = int(wrong.int().argmax())
            raise ValueError(f"{rule}, got {_shown(rows[row])} in row {start + row} (from 0) {where}")

    def missing(self, name: SplitName, split: Split) -> int:
        """Of how many samples of a split there are no outputs."""
        if name not in self._found:
            return len(split)
        place, _ = self._found[name]
        return int((place[split.index] < 0).sum())

    def of(self, split: SplitName, index: Tensor) -> Tensor:
        """(N, C) float32 logits for (N,) ids of samples of a split, on the ids' device."""
        place, values = self._found[split]
        rows = values[place[index.cpu()]]
        logits: Tensor = self.rows(rows.float() if self._holds == "logits" else logits_of(rows, self._kind))
        return logits.to(index.device)


def _shown(row: Tensor) -> str:
    first = ", ".join(f"{value:.4g}" for value in row[:4].tolist())
    return f"{first}, ..." if len(row) > 4 else first


def _with_ids(table: Table) -> tuple[Tensor, Tensor]:
    return (torch.arange(len(table.values)) if table.index is None else table.index), table.values
