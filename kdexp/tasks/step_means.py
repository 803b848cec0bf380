"""Means over all rows of an optimizer's step, whatever batches and ranks it is made of."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from kdexp.contracts import Batch
from kdexp.losses.all_gather import number_of_ranks


def mean_of_step(mean: Tensor, batch: Batch, count: Callable[[Tensor], Tensor]) -> Tensor:
    """What a batch contributes to the mean over all rows of the optimizer's step, of all ranks.

    DDP takes the mean of the ranks' gradients, accumulation that of the batches'. Where they count different numbers
    of rows, as with unlabeled samples or masks, that is not the gradient of the mean over all rows; it is when the mean
    of each is weighed by its part of the rows. With equal numbers the mean stays what it is, to the bit, and so does
    what has no gradient.

    Args:
        mean: scalar, over this batch's rows; of no rows anything finite.
        batch: this rank's.
        count: of a target how many rows are counted, or the sum of their weights.

    Returns:
        ``mean * rows * batches / rows of all batches``, which are those of the step on all ranks; 0 where none has any.
    """
    ranks, step = number_of_ranks(), batch.step or (batch.target,)
    if ranks * len(step) == 1 or not torch.is_grad_enabled():  # validation: its metrics weigh batches themselves
        return mean
    own, total = (_sum_of(targets, count).to(mean.device) for targets in ((batch.target,), step))
    if ranks > 1:
        dist.all_reduce(total)
    return mean * (own * (ranks * len(step)) / total.clamp(min=torch.finfo(total.dtype).tiny)).to(mean.dtype)


def _sum_of(targets: Sequence[Tensor], count: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([count(target).to(torch.float32) for target in targets]).sum()
