"""Means and metrics over a training epoch, of values that come a step at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdexp.contracts import TaskMetrics

_TOGETHER = 2**19
"""So many logits of training batches are measured together."""


class BatchedMetrics:
    """Training metrics that are updated with several batches at once, which costs little more than with one.

    Args:
        metrics: of the training split.
    """

    def __init__(self, metrics: TaskMetrics) -> None:
        self._metrics = metrics
        self._batches: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: logits (N, C) without a gradient, and its target."""
        self._batches.append((logits, target))
        if len(self._batches) * logits.numel() > _TOGETHER:
            self._update()

    def _update(self) -> None:
        logits, target = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        self._metrics.update(logits, target)
        self._batches.clear()

    def pop(self) -> dict[str, float]:
        """The metrics by name; the next epoch begins."""
        if self._batches:
            self._update()
        values = self._metrics.compute()
        self._metrics.reset()
        return values


@dataclass
class _Sums:
    """Of values over an epoch: each times its weight, and of the weights."""

    names: list[str]
    total: Tensor
    weight: int


class EpochMeans:
    """The weighted means of groups of values; each group has its own steps and the same names in all of them."""

    def __init__(self) -> None:
        self._groups: dict[str, _Sums] = {}

    def add(self, prefix: str, values: Mapping[str, Tensor], weight: int) -> tuple[list[str], Tensor]:
        """Add values of a step.

        Args:
            prefix: of the names; it tells the groups apart.
            values: scalars by name; the same names at every call with this prefix in an epoch.
            weight: how much they count in the mean.

        Returns:
            The full names, and (values,) the values, without a gradient.
        """
        stacked = torch.stack([value.detach() for value in values.values()])
        if prefix in self._groups:
            sums = self._groups[prefix]
            sums.total.add_(stacked, alpha=weight)
            sums.weight += weight
        else:
            names = [f"{prefix}{name}".rstrip("_") for name in values]
            sums = self._groups[prefix] = _Sums(names, stacked * weight, weight)
        return sums.names, stacked

    def pop(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means by name; the next epoch begins.

        Args:
            reduce: sums a tensor over the ranks.
        """
        values: dict[str, float] = {}
        for sums in self._groups.values():
            total, weight = reduce(torch.stack([sums.total, torch.full_like(sums.total, sums.weight)]))
            values |= dict(zip(sums.names, (total / weight).tolist(), strict=True))
        self._groups.clear()
        return values
