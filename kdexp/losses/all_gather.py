"""The global batch of all DDP ranks, for losses that compare the samples of a batch with each other."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from kdexp.losses.shapes import check_shapes


def number_of_ranks() -> int:
    """How many processes train together; 1 without DDP."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


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
