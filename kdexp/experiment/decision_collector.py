"""What the networks decide of each test sample, kept while they are evaluated."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdexp.contracts import Batch, Kind
from kdexp.metrics.rows import decisions, labels, rows
from kdexp.report.decisions import Decisions, write


class DecisionCollector:
    """Keeps the decisions of student and teacher, and the labels, of a split whose samples are rows.

    Args:
        kind: how logits and targets are read.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self._found: dict[str, list[Tensor]] = {}

    def __call__(self, batch: Batch, logits: Tensor, teacher_logits: Tensor | None) -> None:
        """See `kdexp.metrics.evaluate.Watcher`."""
        given = {"student": logits} | ({"teacher": teacher_logits} if teacher_logits is not None else {})
        decided = {name: decisions(rows(each), self._kind) for name, each in given.items()}
        for name, found in ({"label": labels(batch.target, self._kind)} | decided).items():
            self._found.setdefault(name, []).append(found.view(len(found), -1).cpu())

    def save(self, folder: Path) -> None:
        """Keep them in the run folder."""
        arrays = {name: torch.cat(parts).numpy().astype(np.int32) for name, parts in self._found.items()}
        write(Decisions(**arrays), folder)
