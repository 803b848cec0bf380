"""Recurrent classifier over sequences, or over the rows of an image."""

from collections.abc import Sequence

from torch import Tensor, nn


def rnn(
    num_classes: int, input_shape: Sequence[int], cell: str = "gru", hidden: int = 64, layers: int = 1
) -> nn.Module:
    """GRU or LSTM; the last layer's state after the last step is classified.

    Modules: ``recurrent`` (gives (states (N, L, hidden), last states)), ``pool`` (its output (N, hidden) is what the
    classifier reads), ``classifier``.

    Args:
        num_classes: outputs of the network.
        input_shape: (steps, features); or (channels, height, width), read as height steps of channels * width.
        cell: "gru" (Cho et al. 2014) or "lstm" (Hochreiter & Schmidhuber 1997).
        hidden: size of the state, at least 1.
        layers: recurrent layers on top of each other, at least 1.

    Returns:
        Maps (N, *input_shape) float to logits (N, num_classes).

    Raises:
        ValueError: another shape or cell, or sizes below 1.
    """
    if len(input_shape) not in (2, 3):
        raise ValueError(
            "rnn takes sequences or images: input_shape must be (steps, features) or (channels, height, width), "
            f"got {list(input_shape)}"
        )
    features = input_shape[1] if len(input_shape) == 2 else input_shape[0] * input_shape[2]
    return RecurrentClassifier(recurrent_layer(cell, features, hidden, layers), num_classes)


def recurrent_layer(cell: str, features: int, hidden: int, layers: int = 1) -> nn.GRU | nn.LSTM:
    """Maps (N, L, features) to (states (N, L, hidden), last states).

    Raises:
        ValueError: cell is neither "gru" nor "lstm".
    """
    if cell not in ("gru", "lstm"):
        raise ValueError(f"cell of rnn must be gru or lstm, got {cell}")
    kind = nn.GRU if cell == "gru" else nn.LSTM
    return kind(features, hidden, layers, batch_first=True)


class RecurrentClassifier(nn.Module):
    """See `rnn`."""

    def __init__(self, recurrent: nn.GRU | nn.LSTM, num_classes: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.pool = LastStep()
        self.classifier = nn.Linear(recurrent.hidden_size, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, L, F) or (N, C, H, W) -> logits (N, num_classes)."""
        steps = inputs.transpose(1, 2).flatten(2) if inputs.ndim == 4 else inputs
        states, _ = self.recurrent(steps)
        logits: Tensor = self.classifier(self.pool(states))
        return logits


class LastStep(nn.Module):
    """(N, L, F) -> (N, F): a module, so that a hook can read the features."""

    def forward(self, states: Tensor) -> Tensor:
        """The last step of each sequence."""
        return states[:, -1]
