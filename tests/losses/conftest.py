import pytest
import torch

from kdexp.losses.outcomes import warn_once


@pytest.fixture(autouse=True)
def nothing_said_yet():
    """Every test is as the first in its process."""
    warn_once.cache_clear()


@pytest.fixture
def logits():
    """Of student and teacher: (16, 6) float64."""
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(16, 6, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.fixture
def target():
    """(16,) class numbers."""
    return torch.randint(0, 6, (16,), generator=torch.Generator().manual_seed(1))
