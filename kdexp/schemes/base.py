"""What a scheme decides: the runs before a run, the networks that learn along, and the kind of training.

A scheme is one file and one yaml in conf/scheme. Its settings are its constructor's arguments.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from kdexp.config import trust
from kdexp.config.identity import Identity
from kdexp.config.require import Values, require
from kdexp.data.settings import Dataset

if TYPE_CHECKING:
    from torch import nn

    from kdexp.teacher.teacher import Teacher
    from kdexp.training.distiller import Distiller
    from kdexp.training.terms import Term


@dataclass(frozen=True)
class SchemeContext:
    """What a scheme's training is made of.

    Attributes:
        dataset: the settings of the data set.
        teacher: the frozen teacher; None where there is none.
        features: feature distillation losses by name.
        peers: the networks that learn along, by name: see `Scheme.peer_settings`.
    """

    dataset: Dataset
    teacher: "Teacher | None" = None
    features: "Mapping[str, Term]" = field(default_factory=dict)
    peers: "Mapping[str, nn.Module]" = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A way to train a student. This one, where no scheme is chosen: one run that learns from a trained teacher.

    Attributes:
        name: the option of conf/scheme.
        teacher: ``trained``: the student learns from the configured teacher; ``own``: the scheme makes the soft targets
            itself; ``none``: there are none. It stands in the yaml, since whether a run is a control must be known
            before the scheme's file is imported; it must be the class's `needs`.
        ensemble: whether the mean of the probabilities of all runs' students is measured.
    """

    name: str = ""
    teacher: str = "trained"
    ensemble: bool = False

    needs: ClassVar[str] = "trained"

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the scheme's own settings, also in a teacher's recipe.

        Args:
            setting: where they stand, for messages: ``scheme``, or ``teacher.recipe.scheme``.
            dataset: the settings of the data set.

        Raises:
            ValueError: one line with the setting, the rule and the value.
        """
        require(bool(self.name) and isinstance(self.name, str), f"{setting}.name", "must be a name", self.name)
        require(self.teacher == self.needs, f"{setting}.teacher", f"must be {self.needs}", self.teacher)

    def check_feature_loss(self, losses: Collection[str]) -> None:
        """Check the feature losses of a run of this scheme.

        Args:
            losses: their names.

        Raises:
            ValueError: one line with the setting, the rule and the value.
        """
        rule = f"needs a teacher, which scheme={self.name} does not have"
        require(not (losses and self.needs == "own"), "feature_loss", rule, "+".join(losses))

    def check_teachers(self, teachers: Mapping[str, Values], loss: str, cache: str) -> None:
        """Check what a run of this scheme learns from; not of a control, which learns from the labels alone.

        Args:
            teachers: the settings of each teacher, by where they stand; empty: the loss needs none.
            loss: the `_target_` of the soft loss.
            cache: ``teacher.cache``.

        Raises:
            ValueError: one line with the setting, the rule and the value.
        """

    def prior_runs(self, values: Values) -> Iterator[tuple[str, Values]]:
        """The runs that come before the run itself, in their order, and at last that.

        Args:
            values: the run's configuration, in plain values.

        Yields:
            (name, configuration): for each run before; then ("", the run itself).
        """
        yield "", dict(values)

    def peer_settings(self, student: Values) -> Mapping[str, Values]:
        """The settings of the networks that learn along with the student, by their names.

        Args:
            student: the settings of the student.
        """
        return {}

    def distiller(self, context: SchemeContext) -> "Callable[..., Distiller]":
        """What makes the training of the student and of the arguments that every `Distiller` takes.

        Args:
            context: what only some trainings take.
        """
        from kdexp.training.distiller import Distiller  # here: settings are checked before torch is imported

        return partial(Distiller, teacher=context.teacher, feature_losses=context.features)


def check_networks(setting: str, networks: Mapping[str, Values], dataset: Dataset) -> None:
    """Refuse networks of a scheme that do not have the data set's outputs.

    Args:
        setting: where they stand.
        networks: the settings of each, by its name.
        dataset: the settings of the data set.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    require(isinstance(networks, Mapping), setting, "must be networks by name", networks)
    for name, network in networks.items():
        found, wanted = network.get("num_classes"), dataset.num_outputs
        require(found == wanted, f"{setting}.{name}.num_classes", f"must be {wanted}", found)


def scheme_of(settings: Values | None, setting: str = "scheme") -> Scheme:
    """The scheme of its settings.

    Args:
        settings: in plain values; empty or None: no scheme is chosen.
        setting: where they stand, for messages.

    Raises:
        ValueError: they name no scheme, or are not its settings.
    """
    if not settings:
        return Scheme()
    if "_target_" not in settings:
        raise ValueError(f"{setting}._target_ must be given, as conf/scheme does, got name={settings.get('name')}")
    return trust.made(settings, "scheme", setting, Scheme)


def scheme_of_run(values: Values) -> Scheme:
    """The scheme of a run; that of a plain run for a control.

    Args:
        values: its configuration, in plain values.
    """
    return Scheme() if Identity(values).is_control else scheme_of(values["scheme"])


def runs_in_order(values: Values) -> Iterator[tuple[str, Values]]:
    """The runs that come before a run, in their order, and at last that: see `Scheme.prior_runs`.

    Args:
        values: the run's configuration, in plain values.
    """
    yield from scheme_of_run(values).prior_runs(values)
