import pytest
import torch
from pairs import CLASSES, MLP, SHAPE, make_batch, make_pair

from kdexp.models.cnn import cnn
from kdexp.models.mlp import mlp


@pytest.fixture
def pair():
    """A student of 4, 8, 16 channels and a teacher of 6, 12, 24; maps of 8 x 8, 4 x 4, 2 x 2."""
    torch.manual_seed(0)
    return make_pair(cnn(CLASSES, SHAPE, width=4), cnn(CLASSES, SHAPE, width=6))


@pytest.fixture
def equal_pair():
    """Two networks of the same shape."""
    torch.manual_seed(0)
    return make_pair(cnn(CLASSES, SHAPE, width=4), cnn(CLASSES, SHAPE, width=4))


@pytest.fixture
def vector_pair():
    """Two networks whose features are vectors, of 7 and 9 numbers."""
    torch.manual_seed(0)
    return make_pair(mlp(CLASSES, SHAPE, hidden=[7]), mlp(CLASSES, SHAPE, hidden=[9]), MLP, MLP)


@pytest.fixture
def batch():
    """Six samples."""
    return make_batch()
