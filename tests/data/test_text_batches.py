"""Batches of texts of about the same length."""

import pytest
import torch

from kdexp.contracts import Split, Splits
from kdexp.data.batch_order import BatchOrder
from kdexp.data.data_module import DataModule
from kdexp.data.texts import code_points

N = 1000
LENGTHS = (torch.arange(N) * 7919) % 97 + 1


def epoch(number=0, lengths=LENGTHS, **settings):
    found = BatchOrder(N, 16, **{"shuffle": True, "drop_last": True, "lengths": lengths, **settings})
    found.set_epoch(number)
    return list(found.tensors())


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_has_the_samples_and_the_batch_sizes_of_one_without_lengths(drop_last):
    plain = epoch(3, None, drop_last=drop_last)
    found = epoch(3, drop_last=drop_last)
    assert torch.equal(torch.cat(found).sort().values, torch.cat(plain).sort().values)
    assert [len(batch) for batch in found] == [len(batch) for batch in plain]


def spread(batches):
    return sum(float(LENGTHS[batch].max() - LENGTHS[batch].min()) for batch in batches) / len(batches)


def test_a_batch_has_texts_of_about_the_same_length_and_batches_come_in_any_order():
    assert spread(epoch()) < spread(epoch(lengths=None)) / 8
    firsts = torch.tensor([float(LENGTHS[batch].float().mean()) for batch in epoch()])
    assert 5 < (firsts.diff() > 0).sum() < len(firsts) - 5


def test_it_is_a_function_of_seed_and_epoch():
    first, again = torch.cat(epoch(1)), torch.cat(epoch(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.cat(epoch(2)))
    assert not torch.equal(first, torch.cat(epoch(1, seed=5)))


def test_ranks_see_together_the_batches_that_one_would_see():
    parts = [epoch(1, rank=rank, world_size=2) for rank in range(2)]
    for batch, *halves in zip(epoch(1), *parts, strict=True):
        assert torch.equal(torch.cat(halves).sort().values, batch.sort().values)


def test_classes_may_be_drawn_evenly_as_well():
    target = (torch.arange(N) % 5 == 0).long()
    shares = {"target": target, "shares": [0.5, 0.5]}
    found = torch.cat(epoch(1, **shares))
    assert torch.equal(found.sort().values, torch.cat(epoch(1, None, **shares)).sort().values)


def test_texts_reach_the_network_as_they_are_and_bucketed():
    texts = ["a " * (1 + number % 30) for number in range(200)]
    inputs = code_points(texts)
    split = Split(inputs, torch.arange(200) % 2, torch.arange(200))
    module = DataModule(
        Splits(split, split, split), augment=[], mean=[0.0], std=[1.0], batch_size=10, eval_batch_size=50,
        drop_last=True, seed=0,
    )  # fmt: skip
    batches = list(module.epochs("cpu")(0))
    assert all(torch.equal(batch.inputs, inputs[batch.index]) for batch in batches)
    widths = [(batch.inputs > 0).sum(1) for batch in batches]
    assert max(int(width.max() - width.min()) for width in widths) <= 8
    assert torch.equal(torch.cat([batch.inputs for batch in module.eval_batches("test", "cpu")]), inputs)
