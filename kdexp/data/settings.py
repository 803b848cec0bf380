"""Settings of conf/dataset and of augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from kdexp.config.require import Group, require


@dataclass
class Dataset:
    """See conf/dataset/base.yaml."""

    name: str = MISSING
    source: Group = MISSING
    kind: str = "multiclass"
    num_classes: int = MISSING
    num_outputs: int = MISSING
    input_shape: list[int] = MISSING
    mean: list[float] = MISSING
    std: list[float] = MISSING
    classes: list[str] | None = None
    default_epochs: int = 30
    batch_size: int = MISSING
    eval_batch_size: int = MISSING
    drop_last: bool = True
    num_workers: int = 0
    val_fraction: float = MISSING
    split_seed: int = 0
    train_fraction: float = 1.0
    subset_seed: int = 0
    imbalance_ratio: float = 1.0
    label_noise: float = 0.0
    label_noise_kind: str = "symmetric"
    unlabeled_fraction: float = 0.0
    class_sampling: Any = None  # a word or a list of numbers: OmegaConf has no such union


@dataclass
class Augment:
    """What is done to training batches, in this order; each transform has a `_target_`. See conf/train.yaml."""

    transforms: list[Any] = field(default_factory=list)
    views: int | None = None
    seed: int = 0


def check_classes(setting: str, names: Sequence[str] | None, wanted: int) -> None:
    """Refuse names of classes that are not as many as the classes, or not different."""
    found = len(set(names or ()))
    holds = names is None or found == len(names) == wanted
    rule = f"must have as many different names as {setting}.num_classes={wanted} says"
    require(holds, f"{setting}.classes", rule, f"{found} in {list(names or ())}")
