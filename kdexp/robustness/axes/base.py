"""An axis of a robustness report: the conditions under which all networks are measured, and what is said of them.

An axis is a class in a file of its own and a yaml in conf/robustness that names it as `_target_`; its settings are the
arguments of the constructor. A user's own stands outside kdexp: ``--config-dir`` finds its yaml, KDEXP_TRUST allows its
module. What measures knows no axis by name; figures and sentences know kdexp's own.

Settings are checked before torch is imported, so an axis imports what needs torch inside the methods that measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from kdexp.config import trust
from kdexp.config.require import require

if TYPE_CHECKING:
    from torch import Tensor

    from kdexp.robustness.bootstrap import Bootstrap, Resampled
    from kdexp.robustness.grid import Batches, Condition, Found, Grid, Part


@dataclass(frozen=True)
class Axis:
    """One axis; subclasses add their settings as fields.

    Attributes:
        name: its key in the configuration's ``robustness``.
        place: where its rows stand in a report: those of a smaller number come first.
        needs_gradients: whether its conditions need gradients of the networks, which a file does not have.
    """

    name: str
    place: ClassVar[int] = 100
    needs_gradients: ClassVar[bool] = False

    @property
    def setting(self) -> str:
        """The name of its settings in messages."""
        return f"robustness.{self.name}"

    @property
    def has_measure(self) -> bool:
        """Whether its conditions have the task's measure, as those of calibration and OOD detection have not."""
        return type(self).measure is not Axis.measure

    def check(self) -> None:
        """Check the rules of the settings that need neither data nor torch.

        Raises:
            ValueError: one line with the setting, the rule and the value.
        """

    def conditions(self, grid: Grid, bed: TestBed) -> list[Condition]:
        """The conditions, in the order of the report's rows.

        Args:
            grid: of the test samples that are used.
            bed: gives other samples and data sets; its notes say what is left out and why.

        Raises:
            ValueError: a setting does not fit the data.
            FileNotFoundError: a data set that was named is not there.
        """
        raise NotImplementedError

    def summarize(self, found: Found, bootstrap: Bootstrap) -> Mapping[str, object]:
        """What the report says of the axis.

        Args:
            found: the axis's conditions, at least one, and what was measured in them.
            bootstrap: for entries with a confidence interval.

        Returns:
            ``Condition.axis`` -> metric, or name and metric -> what `Bootstrap.entry` gives, or a value by role.
        """
        raise NotImplementedError

    def measure(self, found: Found, bootstrap: Bootstrap) -> Mapping[str, Mapping[str, Resampled]]:
        """Kind of condition -> role -> the measure, for the report's first sentence; none where it says nothing."""
        return {}

    def extra(self, found: Found, bootstrap: Bootstrap) -> Mapping[str, object]:
        """More keys of robustness.json."""
        return {}


@dataclass(frozen=True)
class OtherDataAxis(Axis):
    """An axis that takes another data set.

    Attributes:
        dataset: its option; auto: the one in pairs, if there is one and its files are there.
        pairs: data set -> the other one for it.
    """

    dataset: str
    pairs: Mapping[str, str]


class Dataset(Protocol):
    """A data set of which an axis takes samples, brought to the shape of the grid.

    Attributes:
        name: of its option.
        kind: see `kdexp.contracts.Kind`.
        num_classes: how many classes it has.
        classes: their names; None: unknown.
        test: the samples of its test split that the report is of.
        test_target: labels of the whole test split, see `kdexp.contracts.Kind`.
    """

    name: str
    kind: str
    num_classes: int
    classes: Sequence[str] | None
    test: Part
    test_target: Tensor

    def val(self) -> Batches:
        """The validation split."""

    def test_part(self, name: str, samples: int | None) -> Part:
        """So many of the samples in `test` at most, drawn at random and stratified by class.

        Args:
            name: under which the report says how many samples of each class there are.
            samples: None: all.
        """

    def val_part(self, name: str, samples: int | None) -> Part:
        """The same of the validation split."""

    def train_part(self, name: str, samples: int | None) -> Part:
        """The same of the training split."""


class TestBed(Protocol):
    """The data of a run.

    Attributes:
        own: the run's data set; the grid is of the samples in its `test`.
        data_dir: where data sets lie.
        notes: what a reader must know; axes add to them.
    """

    own: Dataset
    data_dir: str
    notes: list[str]

    def other(self, axis: OtherDataAxis) -> Dataset | None:
        """The other data set of an axis.

        Args:
            axis: that wants it.

        Returns:
            None where auto finds none, which is noted.

        Raises:
            ValueError: there is no such option.
            FileNotFoundError: its files are not there.
        """


def check_kinds(setting: str, kinds: Mapping[str, object]) -> None:
    """Check that the kinds of an axis are settings by name.

    Raises:
        ValueError: they are not.
    """
    require(isinstance(kinds, Mapping), f"{setting}.kinds", "must be settings by name", kinds)
    for name, kind in kinds.items():
        require(isinstance(kind, Mapping), f"{setting}.kinds.{name}", "must be settings", kind)


def applicable(axis: Axis, kinds: Mapping[str, Mapping[str, object]], grid: Grid, notes: list[str]) -> dict[str, Any]:
    """The perturbations of an axis that are for the inputs of a grid, by name; the others are noted.

    Args:
        axis: of which they are.
        kinds: their settings.
        grid: of which the inputs are.
        notes: added to.

    Raises:
        ValueError: a perturbation cannot be made of its settings.
    """
    found: dict[str, Any] = {}
    left_out: dict[str, list[str]] = {}
    for name, settings in kinds.items():
        try:
            kind = trust.build(settings, "perturbation")
        except ValueError as error:
            raise ValueError(f"{axis.setting}.kinds.{name}: {error}") from error
        reason = kind.why_not(grid.shape, is_text=grid.is_text)
        if reason is None:
            found[name] = kind
        else:
            left_out.setdefault(reason, []).append(name)
    notes += [f"{axis.name}: {', '.join(names)} left out: {reason}" for reason, names in left_out.items()]
    return found


def operator_path(operator: Callable[..., Tensor]) -> str:
    """The dotted path of a perturbation's operator, a part of the key of a measured condition."""
    function = getattr(operator, "func", operator)  # the yaml makes a partial of it
    return f"{function.__module__}.{function.__qualname__}"
