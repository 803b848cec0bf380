import numpy as np
import pytest
import torch

from kdexp.models.complexity import macs, parameters
from kdexp.models.mlp import mlp


def test_the_articles_network_has_its_size():
    model = mlp(10, (1, 28, 28))
    assert parameters(model) == 784 * 64 + 64 + 64 * 10 + 10
    assert macs(model, (1, 28, 28)) == 784 * 64 + 64 * 10


def test_logits_are_the_formula():
    model = mlp(3, (5,), hidden=[4, 6], dropout=0.5).eval()
    x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    (w1, b1, w2, b2, w3, b3) = (parameter.detach().numpy() for parameter in model.parameters())
    expected = np.maximum(np.maximum(x @ w1.T + b1, 0) @ w2.T + b2, 0) @ w3.T + b3
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_without_hidden_layers_it_is_linear():
    model = mlp(3, (2, 5), hidden=[])
    x, y = torch.randn(2, 4, 2, 5)
    torch.testing.assert_close(model(x) + model(y), model(x + y) + model(torch.zeros_like(x)))


def test_dropout_is_drawn_in_training_alone():
    model = mlp(3, (5,), dropout=0.5)
    x = torch.randn(8, 5)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_an_empty_layer_is_refused():
    with pytest.raises(ValueError, match=r"^hidden of mlp must be widths of at least 1, got \[64, 0\]$"):
        mlp(10, (5,), hidden=[64, 0])
