"""The settings of all packages together."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from kdexp.config import typed
from kdexp.config.renamed import upgrade
from kdexp.config.require import Group, Values
from kdexp.data.settings import Augment, Dataset
from kdexp.experiment.settings import Budget, LossStatement, Tracking
from kdexp.training.settings import Schedule, Trainer


@dataclass
class Config:
    """Everything `kdexp.experiment.run.run` reads. The groups' own keys (networks, losses, optimizers) are free."""

    dataset: Dataset = MISSING
    task: Group = field(default_factory=dict)
    teacher: Group = MISSING
    student: Group = MISSING
    loss: Group = MISSING
    feature_loss: Group = field(default_factory=dict)
    scheme: Group = field(default_factory=dict)
    optimizer: Group = MISSING
    scheduler: Group = MISSING
    trainer: Trainer = MISSING
    tracking: Tracking = MISSING
    robustness: Group = field(default_factory=dict)
    loss_statement: LossStatement = field(default_factory=LossStatement)
    budget: Budget = field(default_factory=Budget)
    augment: Augment = field(default_factory=Augment)
    alpha: float = MISSING
    temperature: float = MISSING
    alpha_schedule: Schedule = field(default_factory=Schedule)
    temperature_schedule: Schedule = field(default_factory=Schedule)
    label_smoothing: float = 0.0
    seed: int = 0
    quick: bool = False
    data_dir: str = MISSING
    store_dir: str = MISSING
    output_dir: str = MISSING
    resume: str | None = None
    rerun: str | None = None
    sweep_name: str | None = None
    sweep_dir: str | None = None
    choices: dict[str, str] = field(default_factory=dict)


def with_defaults(values: Values) -> dict[str, Any]:
    """A configuration from a file, with what every reader takes for granted, whoever wrote it.

    Args:
        values: plain, of this kdexp or an earlier one.

    Returns:
        The configuration, with the defaults of settings that did not exist when it was written, and today's keys.

    Raises:
        ValueError: a setting without a default is missing, or one has a value of the wrong type.
    """
    return typed.complete(upgrade(values), Config, "config")
