import numpy as np
import pytest
import torch

from kdexp.models.complexity import macs, parameters
from kdexp.models.rnn import rnn


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4)])
def test_size_and_macs_are_those_of_its_gates(cell, gates):
    steps, features, hidden = 7, 5, 6
    model = rnn(10, (steps, features), cell, hidden, layers=2)
    per_step = gates * hidden * (features + hidden) + gates * hidden * (hidden + hidden)
    assert macs(model, (steps, features)) == steps * per_step + hidden * 10
    assert parameters(model) == per_step + 2 * 2 * gates * hidden + hidden * 10 + 10


def test_gru_logits_are_the_formula():
    """Cho et al. 2014, with torch's two biases."""
    model = rnn(2, (4, 3), hidden=5).eval()
    x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    (w, u, bw, bu, wc, bc) = (parameter.detach().numpy() for parameter in model.parameters())
    state = np.zeros((6, 5), np.float32)
    for step in range(4):
        own, recurrent = np.split(x[:, step] @ w.T + bw, 3, 1), np.split(state @ u.T + bu, 3, 1)
        reset, update = (1 / (1 + np.exp(-own[i] - recurrent[i])) for i in (0, 1))
        state = (1 - update) * np.tanh(own[2] + reset * recurrent[2]) + update * state
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach().numpy(), state @ wc.T + bc, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_image_is_read_row_by_row(cell):
    torch.manual_seed(0)
    model = rnn(4, (2, 5, 3), cell)
    image = torch.randn(6, 2, 5, 3)
    rows = torch.stack([torch.cat([image[:, 0, h], image[:, 1, h]], 1) for h in range(5)], 1)
    torch.testing.assert_close(model(image), model(rows))


def test_the_classifier_sees_the_whole_sequence():
    torch.manual_seed(0)
    model = rnn(4, (5, 3), layers=2)
    x = torch.randn(2, 5, 3, requires_grad=True)
    model(x).sum().backward()
    assert (x.grad.abs().sum((0, 2)) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (30,)}, r"rnn takes sequences or images: input_shape must be .*, got \[30\]"),
        ({"cell": "transformer"}, "cell of rnn must be gru or lstm, got transformer"),
    ],
)
def test_what_it_cannot_take_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        rnn(**{"num_classes": 10, "input_shape": (5, 3), **arguments})
