"""The paired bootstrap over test samples, and the entries of a report that have its confidence intervals.

Every network, in every condition, is resampled alike, so that two networks that are the same differ by nothing.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kdexp.contracts import Task
from kdexp.metrics.auc import of_two
from kdexp.robustness.grid import Measured
from kdexp.robustness.settings import CONTROL, EXPORTED, ROLES, STUDENT

Array = np.ndarray

Resampled = np.ndarray
"""(1 + n_resamples, ...): of the test set, then of its bootstrap samples."""


class Bootstrap:
    """Resamples what was measured, and makes the entries of a report from it.

    Args:
        clean: what was measured of each role on the clean test set.
        task: whose measure of a set of samples follows from their records.
        seed: of the choice of samples.
        n_resamples: how many bootstrap samples.
        confidence_level: of the intervals, in (0, 1).

    Attributes:
        roles: of the networks, in the order of `kdexp.robustness.settings.ROLES`.
        measure: the name of the metric that networks are compared by, see `kdexp.contracts.Task`.
        record: the name of what is kept of each sample for it.
    """

    def __init__(
        self, clean: Mapping[str, Measured], task: Task, *, seed: int, n_resamples: int, confidence_level: float
    ) -> None:
        self.roles = [role for role in ROLES if role in clean]
        self.measure, self.record = task.measure, task.record
        self._clean, self._task, self._confidence_level = clean, task, confidence_level
        self._resample: dict[str, int] = {"n_resamples": n_resamples, "seed": seed}

    def means(self, values: Array) -> Resampled:
        """See `resampled`; (1 + n_resamples, k)."""
        return resampled(values, **self._resample)

    def mean(self, measured: Measured, name: str) -> Resampled:
        """The mean of what was measured of each sample under a name, (1 + n_resamples,)."""
        values = measured.samples[name].double().numpy()
        return self.means(values.reshape(len(values), 1))[:, 0]

    def auroc(self, own: Tensor, other: Tensor) -> Resampled:
        """See `resampled_auroc`."""
        return resampled_auroc(own.numpy(), other.numpy(), **self._resample)

    def measured(self, conditions: Sequence[Mapping[str, Measured]], role: str) -> Resampled:
        """The measure of a network in several conditions of the same samples, (1 + n_resamples, conditions)."""
        records = torch.stack([one[role].samples[self.record] for one in conditions], 1)
        means = torch.from_numpy(self.means(records.flatten(1).numpy()))
        return self._task.measure_of(means.view(len(means), *records.shape[1:])).numpy()

    def by_role(self, conditions: Sequence[Mapping[str, Measured]]) -> dict[str, Resampled]:
        """The same of each network."""
        return {role: self.measured(conditions, role) for role in self.roles}

    def under(self, condition: Mapping[str, Measured]) -> dict[str, Resampled]:
        """The measure in one condition by role, (1 + n_resamples,)."""
        return {role: self.measured([condition], role)[:, 0] for role in self.roles}

    def clean(self) -> dict[str, Resampled]:
        """The measure on the clean test set by role, (1 + n_resamples,)."""
        return self.under(self._clean)

    def clean_at(self, positions: Tensor | None) -> Mapping[str, Measured]:
        """What was measured on the clean test set, of some samples; None: of all."""
        if positions is None:
            return self._clean
        records = {role: one.samples[self.record] for role, one in self._clean.items()}
        return {role: Measured({}, {self.record: own[positions]}) for role, own in records.items()}

    def entry(self, values: Mapping[str, Resampled]) -> dict[str, object]:
        """A metric by role, and the differences of those that are there, with their intervals.

        ``difference`` is that of student and control, ``export_difference`` that of the exported file and the student.
        """
        entry: dict[str, object] = {role: number(value[0]) for role, value in values.items()}
        if STUDENT in values and CONTROL in values:
            entry["difference"] = self.difference(values[STUDENT] - values[CONTROL])
        if EXPORTED in values and STUDENT in values:
            entry["export_difference"] = self.difference(values[EXPORTED] - values[STUDENT])
        return entry

    def difference(self, values: Resampled) -> dict[str, object]:
        """``{value, low, high}``; None stands for what is not defined."""
        low, high = interval(values, self._confidence_level) or (None, None)
        return {"value": number(values[0]), "low": low, "high": high}


def number(value: float) -> float | None:
    """A value for JSON; None where it is not defined."""
    return None if math.isnan(value) else float(value)


def resampled(values: Array, n_resamples: int, seed: int) -> Array:
    """Means over the test set, and over bootstrap samples of it (Efron and Tibshirani 1993, chapter 13).

    Whatever is resampled with the same arguments is resampled alike, so that differences are of paired samples.

    Args:
        values: (n, k): k values of each test sample; whole numbers are summed exactly.
        n_resamples: how many.
        seed: of the choice.

    Returns:
        (1 + n_resamples, k); the first row is of the test set itself. NaN in the others where that is one sample, which
        says nothing of other samples.
    """
    rows = values.astype(np.float64 if np.issubdtype(values.dtype, np.integer) else np.float32)
    parts = [rows.mean(0, dtype=float, keepdims=True)]
    if len(rows) == 1:
        return np.concatenate([*parts, np.full((n_resamples, rows.shape[1]), np.nan)])
    counts = draw_counts(len(rows), n_resamples, seed)
    parts += [chunk.astype(rows.dtype) @ rows / len(rows) for chunk in _chunks(counts)]
    return np.concatenate(parts).astype(float)


def resampled_auroc(own: Array, other: Array, n_resamples: int, seed: int) -> Array:
    """Area under the ROC curve of a score, of two sets and of bootstrap samples of both.

    Args:
        own: (n,) scores of what ought to score high.
        other: (m,) scores of what ought to score low.
        n_resamples: how many.
        seed: of the choice.

    Returns:
        (1 + n_resamples,); the first is of the sets themselves.
    """
    scores = torch.from_numpy(own), torch.from_numpy(other)
    parts = [of_two(*scores).area().view(1)]
    several = zip(
        _chunks(draw_counts(len(own), n_resamples, seed)),
        _chunks(draw_counts(len(other), n_resamples, seed + 1)),
        strict=True,
    )
    for counts in several:
        parts.append(of_two(*scores, *(torch.from_numpy(count).long() for count in counts)).area())
    return torch.cat(parts).numpy()


@lru_cache(maxsize=4)
def draw_counts(n: int, n_resamples: int, seed: int) -> Array:
    """How often each of n samples is in each bootstrap sample, (n_resamples, n) uint8."""
    rng = np.random.default_rng([seed, n])
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n).astype(np.uint8) for _ in range(n_resamples)])


def _chunks(counts: Array) -> Iterator[Array]:
    return (counts[start : start + 100] for start in range(0, len(counts), 100))


def interval(values: Array, confidence_level: float) -> tuple[float, float] | None:
    """The percentile interval of what was resampled.

    Args:
        values: (1 + n_resamples,), as `resampled` gives them.
        confidence_level: in (0, 1).

    Returns:
        Lower and upper end; None where the value is not defined in some of the samples.
    """
    if np.isnan(values).any():
        return None
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return float(low), float(high)
