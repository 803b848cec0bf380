"""The mean of a stream of batches."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Mean(Metric):
    """A mean over a split and over ranks; NaN when nothing was added.

    ``torchmetrics.MeanMetric`` would do, but it either looks at the values to find NaN, which waits for the device at
    every step, or drops the weights: https://github.com/Lightning-AI/torchmetrics/issues/3434
    """

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor | int) -> None:
        """Add the sum (a scalar) of count items."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        return self.total / self.count
