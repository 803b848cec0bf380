"""Whether a file gives what the network gives from which it was written."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from kdexp.contracts import Batch


@dataclass
class Parity:
    """Compares outputs batch by batch; a `kdexp.metrics.evaluate.Watcher`.

    Attributes:
        samples: that were compared.
        largest: difference of two outputs.
    """

    samples: int = 0
    largest: float = 0.0
    _squares: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def __call__(self, batch: Batch, outputs: Tensor, expected: Tensor | None) -> None:
        """Add a batch.

        Args:
            batch: what both got.
            outputs: (N, ...) of the file.
            expected: the same of the network.
        """
        assert expected is not None
        off = outputs.double() - expected.double()
        self.samples += len(off)
        # A NaN stays one, whatever comes after it.
        self.largest = float("nan") if math.isnan(self.largest) else max(float(off.abs().max()), self.largest)
        self._squares[0] += float(off.square().sum())
        self._squares[1] += float(expected.double().square().sum())

    @property
    def error(self) -> float:
        """The Euclidean length of all differences, relative to that of the network's outputs."""
        off, expected = (math.sqrt(each) for each in self._squares)
        return 0.0 if off == 0 else off / expected if expected else math.inf

    def check(self, tolerance: float, what: str) -> None:
        """Refuse a file whose outputs are not the network's.

        Args:
            tolerance: largest `error`.
            what: was written, for the message.

        Raises:
            ValueError: the error is larger, or not a number.
        """
        if not self.error <= tolerance:
            raise ValueError(
                f"tolerance must be at least the error of the outputs, got {tolerance:g} and an error of "
                f"{self.error:.3g} on {self.samples} samples (largest difference {self.largest:.3g}): {what} is not "
                "the network, and was not kept"
            )
