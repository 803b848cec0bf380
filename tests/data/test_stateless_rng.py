import numpy as np
import pytest
import torch
from scipy import stats

from kdexp.data.stateless_rng import RngStream, _words, order, uniform

MASK = 2**64 - 1


def splitmix64(state: int):
    """The published C code (Vigna, https://prng.di.unimi.it/splitmix64.c), line by line."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def first(state: int) -> int:
    return next(splitmix64(state & MASK))


def test_the_oracle_gives_the_published_numbers():
    """Outputs for seed 1234567, https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64."""
    generator = splitmix64(1234567)
    assert [next(generator) for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize(("seed", "epoch", "draws", "stream"), [(0, 0, 1, 0), (7, 3, 4, 12), (-5, 10**6, 3, 1001)])
def test_numbers_are_those_of_splitmix64_started_at_the_hash_of_seed_epoch_and_stream(seed, epoch, draws, stream):
    index = [0, 1, 2, 59_999, 2**31, 2**40]
    start = first(first(first(seed) + epoch) + stream)
    words = [[first(start + (i * draws + d) * 0x9E3779B97F4A7C15) for d in range(draws)] for i in index]
    expected = np.array([[(word >> 40) / 2**24 for word in row] for row in words], dtype=np.float32)
    found = uniform(seed, epoch, torch.tensor(index), draws, stream)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_numbers_of_a_sample_do_not_depend_on_the_rest_of_the_batch():
    whole = uniform(1, 2, torch.arange(100), 3, RngStream.CROP)
    some = torch.tensor([93, 5, 5, 17])
    assert torch.equal(uniform(1, 2, some, 3, RngStream.CROP), whole[some])


def test_numbers_are_uniform_over_samples_draws_epochs_and_seeds():
    index = torch.arange(20_000)
    for sequence in (
        uniform(0, 0, index, 1, RngStream.FLIP).flatten(),
        uniform(0, 0, index[:5_000], 4, RngStream.RESIZED_CROP).flatten(),
        torch.cat([uniform(0, epoch, index[:1], 1, RngStream.FLIP).flatten() for epoch in range(4_000)]),
        torch.cat([uniform(seed, 0, index[:1], 1, RngStream.FLIP).flatten() for seed in range(4_000)]),
    ):
        assert stats.kstest(sequence.numpy(), "uniform").pvalue > 0.001
        assert sequence.min() >= 0
        assert sequence.max() < 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda i: uniform(0, 0, i, 1, 0), lambda i: uniform(0, 0, i, 1, 1)),
        (lambda i: uniform(0, 0, i, 1, 0), lambda i: uniform(0, 1, i, 1, 0)),
        (lambda i: uniform(0, 0, i, 1, 0), lambda i: uniform(1, 0, i, 1, 0)),
        (lambda i: uniform(0, 1, i, 1, 0), lambda i: uniform(1, 0, i, 1, 0)),
        (lambda i: uniform(0, 0, i, 1, 0), lambda i: uniform(0, 0, i + 1, 1, 0)),
        (lambda i: uniform(0, 0, i, 2, 0)[:, :1], lambda i: uniform(0, 0, i, 2, 0)[:, 1:]),
    ],
    ids=["streams", "epochs", "seeds", "epoch and seed exchanged", "neighbours", "draws"],
)
def test_pairs_of_numbers_fill_the_square_evenly(a, b):
    index = torch.arange(40_000)
    cells = (a(index) * 16).long() * 16 + (b(index) * 16).long()
    assert stats.chisquare(cells.flatten().bincount(minlength=256).numpy()).pvalue > 0.001


def test_an_order_is_a_permutation_that_seed_epoch_and_length_decide():
    assert sorted(order(3, 1, 1000).tolist()) == list(range(1000))
    assert order(3, 1, 1000).dtype == torch.int64
    assert torch.equal(order(3, 1, 1000), order(3, 1, 1000))
    assert not torch.equal(order(3, 1, 1000), order(3, 2, 1000))
    assert not torch.equal(order(3, 1, 1000), order(4, 1, 1000))


def test_an_order_sorts_by_the_signed_words_of_splitmix64():
    start = first(first(first(3) + 1) + RngStream.ORDER)
    words = [first(start + i * 0x9E3779B97F4A7C15) for i in range(50)]
    signed = [word - 2**64 if word >= 2**63 else word for word in words]
    assert order(3, 1, 50).tolist() == sorted(range(50), key=lambda i: signed[i])


def test_the_mix_of_the_words_is_complete():
    """The last step of the mix changes low bits alone, which neither the numbers nor (hardly ever) the orders show."""
    assert int(_words(0, 0, torch.tensor([0]), 1, 0)) & MASK == first(first(first(first(0))))


def test_an_order_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order(0, 0, 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_all_orders_of_four_are_equally_likely():
    orders = torch.stack([order(0, epoch, 4) for epoch in range(4_800)])
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits(gpu):
    index = torch.arange(10_000)
    assert torch.equal(uniform(5, 6, index.cuda(), 4, 7).cpu(), uniform(5, 6, index, 4, 7))
