"""What the frozen representations are good for: a linear probe, nearest neighbors, and CKA with the teacher's.

A linear classifier and nearest neighbors work on what the network's own classifier gets. They are fitted on val and
tested on test, and the same on another data set, which may have any classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.require import is_count, require
from kdexp.robustness.axes.base import OtherDataAxis, TestBed

if TYPE_CHECKING:
    import numpy as np

    from kdexp.robustness.attacks import Network
    from kdexp.robustness.bootstrap import Bootstrap
    from kdexp.robustness.grid import Batches, Condition, Found, Grid, Measured, Networks

    Represented = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    """Representations and classes of the samples that are fitted, then of those that are tested."""


@dataclass(frozen=True)
class Representations(OtherDataAxis):
    """The representations on the run's own data set and on another.

    Attributes:
        train_samples: to fit on at most, stratified by class.
        n_neighbors: how many nearest neighbors vote.
    """

    train_samples: int
    n_neighbors: int
    place: ClassVar[int] = 70

    def check(self) -> None:
        """See `Axis.check`."""
        for name in ("train_samples", "n_neighbors"):
            count = getattr(self, name)
            require(is_count(count), f"{self.setting}.{name}", "must be at least 1", count)

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """A condition of the run's own data set, and one of the other."""
        if grid.kind == "multilabel" or grid.is_dense:
            found = "targets are masks" if grid.is_dense else "the kind is multilabel"
            bed.notes.append(f"{self.name} left out: a probe is for one class a sample, and {found}")
            return []
        part = bed.own.val_part(f"{self.name} train", self.train_samples)
        conditions = [self._condition(grid, bed.own.name, part.batches, grid.batches).on(part)]
        other = bed.other(self)
        if other is not None:
            part = other.train_part(f"{self.name} {other.name} train", self.train_samples)
            conditions.append(self._condition(grid, other.name, part.batches, other.test.batches).on(part, other.test))
        return conditions

    def _condition(self, grid: Grid, name: str, fit: Batches, test: Batches) -> Condition:
        """A data set; on the grid's own, how similar the representations are to the teacher's, too."""
        from kdexp.robustness.grid import Condition

        is_own = test is grid.batches

        def measure(networks: Networks) -> dict[str, Measured]:
            found = {role: _represented(network, fit, test) for role, network in networks.represent.items()}
            teachers = {role: found.get(networks.teachers.get(role, "")) if is_own else None for role in networks.all}
            return {role: self._measured(found.get(role), teachers[role]) for role in networks.all}

        return Condition(
            self.name, name, 0, measure, {"n_neighbors": self.n_neighbors, "train_samples": self.train_samples}
        )

    def _measured(self, own: Represented | None, teacher: Represented | None) -> Measured:
        import torch

        from kdexp.robustness.grid import Measured
        from kdexp.robustness.probes import cka, linear_probe, nearest

        if own is None:
            return Measured({}, notes=["it has no representations of its own to read"])
        right = {"linear_probe_acc": linear_probe(*own), "knn_acc": nearest(*own, n_neighbors=self.n_neighbors)}
        values = {name: float(each.mean()) for name, each in right.items()}
        if teacher is not None:
            values["cka_to_teacher"] = cka(own[2], teacher[2])
        return Measured(values, {name: torch.from_numpy(each) for name, each in right.items()})

    def summarize(self, found: Found, bootstrap: Bootstrap) -> dict[str, object]:
        """Accuracy of probe and neighbors, and CKA, of the networks that have representations."""
        return {self.name: {condition.name: _worth(measured, bootstrap) for condition, measured in found}}


def _represented(network: Network, fit: Batches, test: Batches) -> Represented:
    from kdexp.robustness.grid import logits_of

    (known, labels), (tested, truth) = logits_of(network, fit), logits_of(network, test)
    return known.flatten(1).float().numpy(), labels.numpy(), tested.flatten(1).float().numpy(), truth.numpy()


def _worth(measured: Mapping[str, Measured], bootstrap: Bootstrap) -> dict[str, object]:
    from kdexp.robustness.bootstrap import number

    having = {role: one for role, one in measured.items() if one.values}
    said: dict[str, object] = {
        name: bootstrap.entry({role: bootstrap.mean(one, name) for role, one in having.items()})
        for name in ("linear_probe_acc", "knn_acc")
    }
    similar = {role: one.values["cka_to_teacher"] for role, one in having.items() if "cka_to_teacher" in one.values}
    return said | ({"cka_to_teacher": {role: number(value) for role, value in similar.items()}} if similar else {})
