"""How large a network is: in a file, in parameters, in work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from kdexp.models.complexity import macs, parameters


@dataclass(frozen=True)
class Size:
    """What a network takes.

    Attributes:
        bytes: of its file.
        parameters: see `kdexp.models.complexity.parameters`.
        macs: of one sample, see `kdexp.models.complexity.macs`.
    """

    bytes: int
    parameters: int
    macs: int


def size_of(network: nn.Module, input_shape: Sequence[int], file: Path) -> Size:
    """What a network and its file take.

    Args:
        network: as it was before it was written: quantised, it has as many parameters and does as much work.
        input_shape: of one sample, without N.
        file: that it was written to.
    """
    return Size(file.stat().st_size, parameters(network), macs(network, input_shape))
