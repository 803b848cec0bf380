"""Means over an epoch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class EpochMeans:
    """Of values over an epoch: each times its weight, and of the weights."""

    names: list[str]
    total: Tensor
    weight: int
