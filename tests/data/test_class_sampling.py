from collections import Counter

import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import chisquare

from kdexp.config.compose import compose
from kdexp.contracts import UNLABELED
from kdexp.data.class_sampling import class_shares, resampled_order
from kdexp.experiment.experiment import Experiment


def labels(*counts, unlabeled=0):
    target = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)] + [torch.full((unlabeled,), UNLABELED)])
    return target[torch.randperm(len(target), generator=torch.Generator().manual_seed(0))]


def drawn(target, shares, seed=0, epoch=0):
    """Positions of each label in their order, without what marks copies."""
    positions = (resampled_order(target, shares, seed, epoch) % len(target)).tolist()
    return {c: [p for p in positions if target[p] == c] for c in target.unique().tolist()}


@pytest.mark.parametrize(
    ("counts", "shares", "expected"),
    [
        ((6, 3, 1), [1 / 3] * 3, (4, 3, 3)),  # 3.33 each: the place left over goes to the first class
        ((5, 5), [0.9, 0.1], (9, 1)),
        ((60, 30, 10), [0.1, 0.2, 0.7], (10, 20, 70)),
        ((4, 4, 3), [0.5, 0.25, 0.25], (5, 3, 3)),  # 5.5, 2.75, 2.75: the larger remainders first
        ((3, 4), [0.001, 0.999], (0, 7)),
        ((7,) * 10, [0.1] * 10, (7,) * 10),
    ],
)
def test_classes_have_their_shares_in_every_epoch(counts, shares, expected):
    target = labels(*counts)
    for epoch in range(5):
        found = drawn(target, shares, epoch=epoch)
        assert tuple(len(found[c]) for c in range(len(counts))) == expected


def test_within_a_class_no_sample_comes_twice_more_often_than_another():
    for positions in drawn(labels(60, 30, 10), [0.1, 0.2, 0.7]).values():
        times = Counter(positions)
        if len(positions) >= 30:
            assert max(times.values()) - min(times.values()) <= 1
        else:
            assert max(times.values()) == 1


def test_copies_are_numbered():
    target = labels(6, 3, 1)
    found = resampled_order(target, [1 / 3] * 3, 0, 0).tolist()
    rare = int((target == 2).nonzero())
    assert sorted(p for p in found if p % 10 == rare) == [rare, rare + 10, rare + 20]
    assert sorted(p for p in found if p % 10 != rare) == sorted(p % 10 for p in found if p % 10 != rare)
    assert len(set(found)) == 10


def test_samples_without_a_label_come_once_each_and_the_shares_are_of_the_others():
    target = labels(40, 10, unlabeled=50)
    for epoch in range(3):
        found = drawn(target, [0.2, 0.8], epoch=epoch)
        assert sorted(found[UNLABELED]) == (target == UNLABELED).nonzero().flatten().tolist()
        assert (len(found[0]), len(found[1])) == (10, 40)


def test_an_order_is_a_function_of_seed_and_epoch_alone():
    target = labels(40, 10, unlabeled=5)

    def of(seed, epoch):
        return resampled_order(target, [0.5, 0.5], seed, epoch).tolist()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = of(3, 1)
    torch.manual_seed(1)
    assert of(3, 1) == first
    assert of(3, 2) != first != of(4, 1)
    torch.manual_seed(0)
    of(3, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_over_the_epochs_the_samples_of_a_class_come_equally_often():
    target = labels(30, 7)
    times = Counter(p for epoch in range(400) for p in drawn(target, [0.3, 0.7], epoch=epoch)[0])
    # 11 of 30 without replacement vary less than chance, so that the test of even chance is a strict one.
    assert len(times) == 30
    assert chisquare(list(times.values())).pvalue > 0.001


def test_all_orders_of_four_are_equally_likely():
    """Which would not be so if a class were shuffled by the numbers that then shuffle the whole."""
    orders = torch.stack([resampled_order(torch.zeros(4, dtype=torch.int64), [1.0], 0, i) for i in range(2_400)])
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts.numpy()).pvalue > 0.001


def test_classes_and_copies_are_mixed_over_the_epoch():
    target = labels(900, 100)
    order = resampled_order(target, [0.5, 0.5], 0, 0)
    for part in order.view(10, 100):
        assert abs(int((target[part % 1000] == 1).sum()) - 50) < 25
        assert len((part // 1000).unique()) > 2


def test_a_class_without_labelled_samples_is_refused():
    rule = r"^dataset.class_sampling must find labelled samples of every class, got none of class 1$"
    with pytest.raises(ValueError, match=rule):
        resampled_order(torch.tensor([0, 0, 2, UNLABELED]), [0.2, 0.5, 0.3], 0, 0)


def test_shares_are_normalised():
    assert class_shares(None, kind="multiclass", num_classes=4) is None
    assert class_shares("balanced", kind="binary", num_classes=2) == [0.5, 0.5]
    assert class_shares([3, 1], kind="binary", num_classes=2) == [0.75, 0.25]
    assert class_shares(OmegaConf.create([2, 1, 1.0]), kind="multiclass", num_classes=3) == [0.5, 0.25, 0.25]


BAD = ("even", 3, {}, [1, 2], *([1, 2, bad] for bad in (0, -1, float("inf"), float("nan"), "x", True)))


@pytest.mark.parametrize("given", BAD)
def test_what_is_not_a_positive_number_for_each_class_is_refused(given):
    rule = r"^dataset.class_sampling must be null, balanced or a list of 3 positive numbers, one for each class, got "
    with pytest.raises(ValueError, match=rule) as error:
        class_shares(given, kind="multiclass", num_classes=3)
    assert str(error.value).endswith(f"got {given}")


def test_multilabel_data_are_refused():
    with pytest.raises(
        ValueError, match=r"^dataset.class_sampling must be null with kind=multilabel, .*, got balanced$"
    ):
        class_shares("balanced", kind="multilabel", num_classes=3)


def composed(tmp_path, *overrides):
    return compose(["experiment=smoke", *overrides], output_dir=tmp_path)


def classes_of_an_epoch(module):
    index = module._order(module.splits.train, training=True).tensors()
    return module.splits.train.target[torch.cat(list(index)) % len(module.splits.train)].bincount().tolist()


def test_the_setting_reaches_the_students_epochs_and_not_the_teachers(tmp_path):
    given = "[4,1,1,1,1,1,1,1,1,1]"  # of 460 labelled samples: 141.5 and 35.4
    config = composed(
        tmp_path, f"dataset.class_sampling={given}", "dataset.batch_size=92", "teacher.recipe.batch_size=46"
    )
    data = Experiment(config).data
    assert len(data.student.splits.train) == 461
    # One of 461 is left out of five batches of 92.
    found = classes_of_an_epoch(data.student)
    assert 141 <= found[0] <= 142
    assert all(34 <= n <= 36 for n in found[1:])
    teachers = classes_of_an_epoch(data.for_teacher(config.teacher))
    assert max(teachers) <= 47


def test_a_wrong_setting_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match=r"^dataset.class_sampling must be .* list of 10 positive numbers"):
        _ = Experiment(composed(tmp_path, "dataset.class_sampling=[1,2]")).data
    with pytest.raises(ValueError, match=r"^dataset.class_sampling must be null with kind=multilabel"):
        _ = Experiment(composed(tmp_path, "dataset.class_sampling=balanced", "dataset.kind=multilabel")).data
