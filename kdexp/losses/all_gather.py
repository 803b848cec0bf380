"""The global batch of all DDP ranks, for losses that compare its samples and for means over its rows."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from kdexp.losses.shapes import check_shapes


def number_of_ranks() -> int:
    """How many processes train together; 1 without DDP."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_of_ranks(mean: Tensor, rows: Tensor | int) -> Tensor:
    """What a rank contributes to the mean over the rows of all ranks.

    DDP takes the mean of the ranks' gradients. Where ranks count different numbers of rows, as with hidden labels or
    masks, that is not the gradient of the mean over all rows; it is when each rank's mean is weighed by its part of the
    rows. Ranks with equally many rows keep their mean to the bit, and so does what has no gradient.

    Args:
        mean: scalar, over this rank's rows; of no rows anything finite.
        rows: how many those are, or how much each counts: its sum is taken.

    Returns:
        ``mean * rows * ranks / rows of all ranks``; 0 where no rank has any.
    """
    ranks = number_of_ranks()
    if ranks == 1 or not torch.is_grad_enabled():  # validation: its metrics weigh batches themselves
        return mean
    own = torch.as_tensor(rows, device=mean.device).sum().to(torch.float32)
    total = own.clone()
    dist.all_reduce(total)
    return mean * (own * ranks / total.clamp(min=torch.finfo(total.dtype).tiny)).to(mean.dtype)


def gather(values: Tensor) -> Tensor:
    """The values (N, ...) of all ranks, one behind the other; without DDP the values themselves.

    Every rank then computes the same loss of the same global batch. In the backward pass a rank gets the sum over all
    ranks of the gradients for its share, so that the mean over ranks that DDP takes of the parameters' gradients is
    the gradient of that one loss: N processes learn what one process with the global batch would.

    Args:
        values: (N, *), N being the samples that the rank has: ranks may differ in that, as they do in batches that
            their number does not divide, but in nothing else.

    Raises:
        ValueError: a scalar.
    """
    check_shapes("N *", values=values)
    if number_of_ranks() == 1:
        return values
    gathered: Tensor = _Gather.apply(values)
    return gathered


class _Share(FunctionCtx):
    """What a rank's share of a batch is: where it begins, and how many samples it has."""

    first: int
    samples: int


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Share, values: Tensor) -> Tensor:
        ranks = range(dist.get_world_size())
        own = torch.tensor([len(values)], device=values.device)
        counts = [torch.empty_like(own) for _ in ranks]
        dist.all_gather(counts, own)
        samples = torch.cat(counts).tolist()
        ctx.first, ctx.samples = sum(samples[: dist.get_rank()]), len(values)
        # The collective takes one shape from all ranks: shorter shares are filled up, and cut again.
        filled = values.new_zeros((max(samples), *values.shape[1:]))
        filled[: len(values)] = values
        shares = [torch.empty_like(filled) for _ in ranks]
        dist.all_gather(shares, filled)
        return torch.cat([share[:size] for share, size in zip(shares, samples, strict=True)])

    @staticmethod
    def backward(ctx: _Share, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)  # others may hold the gradient that came
        dist.all_reduce(total)
        return total[ctx.first : ctx.first + ctx.samples]
