"""A test part for data sets that come without one."""

import numpy as np
from sklearn.model_selection import train_test_split
from torch import Tensor

from kdexp.contracts import Source

# Fixed for good: the test part must not depend on any setting, or results of different runs would not compare.
_TEST_SEED = 20150309


def hold_out(inputs: Tensor, target: Tensor, test_fraction: float) -> Source:
    """Set a share of the samples of each class aside as the test part.

    Args:
        inputs: (N, ...).
        target: (N,) int64.
        test_fraction: in (0, 1).

    Raises:
        ValueError: test_fraction is out of range.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"dataset.source.test_fraction must be in (0, 1), got {test_fraction}")
    train, test = train_test_split(
        np.arange(len(target)), test_size=test_fraction, stratify=target.numpy(), random_state=_TEST_SEED
    )
    return Source(inputs[train], target[train], inputs[test], target[test])
