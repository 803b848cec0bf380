"""Accuracy by group: who loses most by what is right on average?"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from kdexp.contracts import Batch, Kind
from kdexp.metrics.rows import right


@torch.no_grad()
def group_accuracy(
    network: Callable[[Tensor], Tensor], batches: Iterable[Batch], kind: Kind, groups: tuple[Sequence[str], Tensor]
) -> dict[str, float]:
    """The accuracy of each group, and of the worst.

    Args:
        network: in eval mode, inputs to logits.
        batches: of the test split, all or some of it.
        kind: what logits and targets mean.
        groups: see `kdexp.contracts.Source`; of a sample it is the one at its `Batch.index`.

    Returns:
        ``worst_group``: the lowest; ``acc_of_group NAME``: of each that has a sample.
    """
    names, of_test = groups
    total, count = (torch.zeros(len(names), dtype=torch.float64) for _ in range(2))
    for batch in batches:
        place = of_test[batch.index.cpu()]
        is_right = right(network(batch.inputs), batch.target, kind).double().cpu()
        total.index_add_(0, place, is_right)
        count.index_add_(0, place, torch.ones_like(is_right))
    accuracy = dict(zip(names, (total / count).tolist(), strict=True))
    known = {name: value for (name, value), n in zip(accuracy.items(), count.tolist(), strict=True) if n}
    return {"worst_group": min(known.values()), **{f"acc_of_group {name}": value for name, value in known.items()}}
