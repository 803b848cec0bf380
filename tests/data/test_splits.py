from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from kdexp.contracts import UNLABELED, Source
from kdexp.data.splits import make_splits, samples_per_class, stratified_sample

COUNTS = (400, 250, 100, 50)
CLASSES = len(COUNTS)


def source(counts=COUNTS, val=None) -> Source:
    target = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    target = target[torch.randperm(len(target), generator=torch.Generator().manual_seed(0))]
    inputs = torch.arange(len(target), dtype=torch.float32).unsqueeze(1)
    return Source(inputs, target, torch.zeros(8, 1), torch.arange(8) % len(counts), val)


def split(data=None, **changed):
    arguments = {"kind": "multiclass", "num_classes": CLASSES, "val_fraction": 0.1, "split_seed": 0} | changed
    return make_splits(data or source(), **arguments)


def multilabel(**changed):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (100, 3), generator=generator).float()
    data = Source(torch.zeros(100, 1), target, torch.zeros(10, 1), target[:10].clone())
    return data, split(data, kind="multilabel", num_classes=3, **changed)


def histogram(target) -> list[int]:
    return torch.bincount(target, minlength=CLASSES).tolist()


def test_val_is_a_stratified_share_and_train_the_rest():
    data, parts = source(), split()
    assert histogram(parts.val.target) == [40, 25, 10, 5]
    assert histogram(parts.train.target) == [360, 225, 90, 45]
    assert sorted([*parts.train.index.tolist(), *parts.val.index.tolist()]) == list(range(800))
    for part in (parts.train, parts.val):
        assert torch.equal(part.target, data.train_target[part.index])
        assert part.index.dtype == torch.int64


def test_inputs_are_not_copied():
    data = source()
    parts = split(data, train_fraction=0.5)
    assert parts.train.inputs is data.train_inputs
    assert parts.val.inputs is data.train_inputs


def test_test_is_the_sources_own_whatever_else_is_asked_for():
    data = source()
    parts = split(data, label_noise=0.5, unlabeled_fraction=0.5, train_fraction=0.5)
    assert parts.test.inputs is data.test_inputs
    assert torch.equal(parts.test.target, data.test_target)
    assert parts.test.index.tolist() == list(range(8))


def test_an_official_val_is_kept_and_all_of_train_is_trained_on():
    val = (torch.ones(20, 1), torch.arange(20) % CLASSES)
    parts = split(source(val=val))
    assert len(parts.train) == 800
    assert parts.val.inputs is val[0]
    assert torch.equal(parts.val.target, val[1])


def test_split_seed_alone_chooses_val():
    same = split(subset_seed=5, label_noise=0.3, train_fraction=0.5)
    assert torch.equal(split().val.index, same.val.index)
    assert not torch.equal(split().val.index, split(split_seed=1).val.index)


@pytest.mark.parametrize("counts", [COUNTS, (300, 300, 300), (7, 11, 13, 17, 19)])
@pytest.mark.parametrize("fraction", [0.29, 0.5, 0.77])
def test_a_subset_has_the_exact_size_and_each_class_its_share_within_one(counts, fraction):
    train = split(source(counts), num_classes=len(counts), val_fraction=0.2).train
    subset = split(source(counts), num_classes=len(counts), val_fraction=0.2, train_fraction=fraction).train
    assert len(subset) == round(fraction * len(train))
    shares = np.bincount(train.target) * len(subset) / len(train)
    assert (np.abs(np.bincount(subset.target) - shares) < 1).all()


def test_a_smaller_subset_is_part_of_a_larger_one():
    fractions = [0.05, 0.051, 0.1, 0.33, 0.34, 0.5, 0.9, 1.0]
    subsets = [set(split(train_fraction=fraction).train.index.tolist()) for fraction in fractions]
    assert all(small < large for small, large in pairwise(subsets))


def test_another_subset_seed_gives_another_subset_of_the_same_training_part():
    a, b = (split(train_fraction=0.5, subset_seed=seed).train for seed in (0, 1))
    assert set(a.index.tolist()) != set(b.index.tolist())
    assert not set(a.index.tolist()) & set(split().val.index.tolist())


@pytest.mark.parametrize("kind", ["symmetric", "pairflip"])
@pytest.mark.parametrize("rate", [0.0, 0.013, 0.4, 1.0])
def test_label_noise_changes_an_exact_number_of_labels_stratified_by_class(kind, rate):
    clean, noisy = split().train, split(label_noise=rate, label_noise_kind=kind).train
    assert torch.equal(clean.index, noisy.index)
    wrong = clean.target != noisy.target
    assert int(wrong.sum()) == round(rate * len(clean))
    share = np.array(histogram(clean.target)) * int(wrong.sum()) / len(clean)
    assert (np.abs(np.array(histogram(clean.target[wrong])) - share) < 1).all()


def test_a_long_tail_has_the_published_sizes():
    """CIFAR-10-LT at ratio 100, as the code of Cao et al. 2019 makes it and later papers list it."""
    val = (torch.zeros(10, 1), torch.arange(10))
    train = split(source((5000,) * 10, val), num_classes=10, imbalance_ratio=100).train
    assert train.target.bincount().tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@pytest.mark.parametrize(
    ("counts", "ratio", "expected"),
    [
        ((100, 100, 100), 4.0, [100, 50, 25]),
        ((100, 100, 100), 100.0, [100, 10, 1]),
        ((40, 60), 1.5, [40, 26]),  # 40 / 1.5 = 26.67
        ((200, 60, 100), 4.0, [120, 60, 30]),  # the second class is too small for more than 2 * 60 of the first
        ((200, 200, 20), 4.0, [80, 40, 20]),
        ((70, 50, 90), 1.0, [70, 50, 90]),
    ],
)
def test_a_long_tail_falls_geometrically_from_the_largest_size_that_all_classes_allow(counts, ratio, expected):
    val = (torch.zeros(9, 1), torch.arange(9) % len(counts))
    train = split(source(counts, val), num_classes=len(counts), imbalance_ratio=ratio).train
    assert train.target.bincount().tolist() == expected


def test_a_long_tail_leaves_val_and_test_as_they_are_and_labels_with_their_samples():
    data = source()
    whole, thinned = split(data), split(data, imbalance_ratio=5)
    for part in ("val", "test"):
        assert torch.equal(getattr(whole, part).index, getattr(thinned, part).index)
        assert torch.equal(getattr(whole, part).target, getattr(thinned, part).target)
    assert set(thinned.train.index.tolist()) < set(whole.train.index.tolist())
    assert torch.equal(thinned.train.target, data.train_target[thinned.train.index])
    assert torch.equal(thinned.train.index, thinned.train.index.sort().values)


def test_long_tails_of_smaller_subsets_and_larger_ratios_are_parts_of_each_other():
    def chosen(**changed):
        return set(split(source((200,) * 4), **changed).train.index.tolist())

    sets = [chosen(imbalance_ratio=10, train_fraction=fraction) for fraction in (0.2, 0.21, 0.5, 0.99, 1.0)]
    sets += [chosen(imbalance_ratio=ratio) for ratio in (9.0, 2.0, 1.0)]
    assert all(small < large for small, large in pairwise(sets))
    assert chosen(imbalance_ratio=10) != chosen(imbalance_ratio=10, subset_seed=1)


def test_wrong_and_hidden_labels_are_exact_shares_of_what_the_long_tail_keeps():
    clean = split(imbalance_ratio=8).train
    changed = split(imbalance_ratio=8, label_noise=0.3).train
    assert torch.equal(clean.index, changed.index)
    assert int((clean.target != changed.target).sum()) == round(0.3 * len(clean))
    hidden = split(imbalance_ratio=8, unlabeled_fraction=0.3).train
    assert int((hidden.target == UNLABELED).sum()) == round(0.3 * len(clean))


def test_label_noise_touches_neither_val_nor_the_source():
    data = source()
    before = data.train_target.clone()
    parts = split(data, label_noise=1.0)
    assert torch.equal(data.train_target, before)
    assert torch.equal(parts.val.target, before[parts.val.index])


def test_pair_noise_gives_the_next_class():
    clean, noisy = split().train, split(label_noise=0.5, label_noise_kind="pairflip").train
    wrong = clean.target != noisy.target
    assert torch.equal(noisy.target[wrong], (clean.target[wrong] + 1) % CLASSES)


def test_symmetric_noise_is_spread_evenly_over_the_other_classes():
    data = source((3000, 3000, 3000, 3000))
    clean, noisy = split(data).train, split(data, label_noise=1.0).train
    for label in range(CLASSES):
        found = histogram(noisy.target[clean.target == label])
        assert found.pop(label) == 0
        assert chisquare(found).pvalue > 0.001


@pytest.mark.parametrize("fraction", [0.0, 0.37, 1.0])
def test_an_exact_stratified_number_of_labels_is_hidden(fraction):
    clean, hidden = split().train, split(unlabeled_fraction=fraction).train
    unlabeled = hidden.target == UNLABELED
    assert int(unlabeled.sum()) == round(fraction * len(clean))
    assert torch.equal(hidden.target[~unlabeled], clean.target[~unlabeled])
    share = np.array(histogram(clean.target)) * fraction
    assert (np.abs(np.array(histogram(clean.target[unlabeled])) - share) < 1).all()
    assert not (split(unlabeled_fraction=fraction).val.target == UNLABELED).any()


def test_the_same_labels_are_hidden_with_and_without_noise():
    a, b = split(unlabeled_fraction=0.3).train, split(unlabeled_fraction=0.3, label_noise=0.5).train
    assert torch.equal(a.target == UNLABELED, b.target == UNLABELED)


def test_which_labels_are_wrong_and_which_are_hidden_has_nothing_to_do_with_each_other():
    clean, wrong = split().train, split(label_noise=0.5).train
    hidden = split(unlabeled_fraction=0.5).train.target == UNLABELED
    both = hidden & (wrong.target != clean.target)
    assert abs(both.float().mean() - 0.25) < 0.05


def test_the_binary_task_takes_the_same_two_classes():
    data = source((40, 60))
    parts = split(data, kind="binary", num_classes=2, label_noise=0.5)
    assert parts.train.target.dtype == torch.int64
    assert set(parts.train.target.tolist()) == {0, 1}


def test_multilabel_noise_inverts_an_exact_number_of_single_entries():
    data, parts = multilabel(label_noise=0.1)
    clean = data.train_target[parts.train.index]
    assert int((clean != parts.train.target).sum()) == round(0.1 * 90 * 3)
    assert set(parts.train.target.flatten().tolist()) == {0.0, 1.0}
    assert parts.train.target.dtype == torch.float32


def test_multilabel_rows_are_hidden_whole():
    _, parts = multilabel(unlabeled_fraction=0.5)
    rows = (parts.train.target == UNLABELED).sum(1)
    assert sorted(rows.unique().tolist()) == [0, 3]
    assert int((rows == 3).sum()) == 45


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_fraction": 0.0}, r"dataset.val_fraction must be in \(0, 1\), got 0.0"),
        ({"val_fraction": 1.0}, r"dataset.val_fraction must be in \(0, 1\), got 1.0"),
        ({"val_fraction": 1e-4}, "dataset.val_fraction must leave samples for val, got 0.0001"),
        (
            {"val_fraction": 0.008},
            r"dataset.val_fraction must leave samples of every class for val \(class 3 has none\)",
        ),
        ({"val_fraction": 0.996}, "dataset.val_fraction must leave samples of every class for train"),
        ({"train_fraction": 0}, r"dataset.train_fraction must be in \(0, 1\], got 0"),
        ({"train_fraction": 1.5}, r"dataset.train_fraction must be in \(0, 1\], got 1.5"),
        ({"train_fraction": 0.005}, r"dataset.train_fraction must leave samples of every class for train \(class 3"),
        ({"imbalance_ratio": 0.5}, "dataset.imbalance_ratio must be >= 1, got 0.5"),
        ({"imbalance_ratio": float("inf")}, "dataset.imbalance_ratio must be >= 1, got inf"),
        (
            {"imbalance_ratio": 1000},
            r"dataset.imbalance_ratio must leave samples of every class for train \(class 3 has none\), got 1000",
        ),
        ({"label_noise": -0.1}, r"dataset.label_noise must be in \[0, 1\], got -0.1"),
        ({"label_noise_kind": "odd"}, "dataset.label_noise_kind must be symmetric or pairflip, got odd"),
        ({"unlabeled_fraction": 2}, r"dataset.unlabeled_fraction must be in \[0, 1\], got 2"),
        ({"num_classes": 5}, "dataset.num_classes must be 4, the classes in the data, got 5"),
        ({"num_classes": 3}, "dataset.num_classes must be 4, the classes in the data, got 3"),
        ({"kind": "binary"}, "dataset.num_classes must be 2 with kind=binary, got 4"),
        ({"kind": "multilabel"}, "dataset.kind must be multiclass or binary for one label a sample, got multilabel"),
    ],
)
def test_bad_settings_are_refused_in_one_line_with_the_rule_and_the_value(changed, message):
    with pytest.raises(ValueError, match="^" + message) as error:
        split(**changed)
    assert "\n" not in str(error.value)


def test_multilabel_settings_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"dataset.label_noise_kind must be symmetric with kind=multilabel, got pairflip"
    ):
        multilabel(label_noise=0.1, label_noise_kind="pairflip")
    with pytest.raises(ValueError, match=r"dataset.imbalance_ratio must be 1 with kind=multilabel, .*, got 2$"):
        multilabel(imbalance_ratio=2)
    data, _ = multilabel()
    with pytest.raises(ValueError, match=r"dataset.num_classes must be 3, the labels in the data, got 4"):
        split(data, kind="multilabel", num_classes=4)
    with pytest.raises(ValueError, match=r"dataset.kind must be multilabel for several labels a sample"):
        split(data, num_classes=3)


@pytest.mark.parametrize("labels", [[1, 2, 3, 4], [0, 1, 2, -1], [0, 2, 3, 4]])
def test_labels_that_do_not_count_from_0_are_refused(labels):
    target = torch.tensor(labels * 10)
    data = Source(torch.zeros(40, 1), target, torch.zeros(4, 1), target[:4])
    with pytest.raises(ValueError, match=r"dataset.source must number its classes 0..C-1, got labels"):
        split(data)


# Sub-samples


@pytest.mark.parametrize("seed", [0, 7])
def test_a_sample_of_sorted_labels_has_each_class_in_its_share_and_is_random(seed):
    target = torch.arange(3).repeat_interleave(torch.tensor([300, 300, 150]))
    chosen = stratified_sample(target, 75, seed)
    assert torch.equal(chosen, chosen.sort().values)
    assert len(chosen.unique()) == 75
    assert histogram(target[chosen])[:3] == [30, 30, 15]
    assert not torch.equal(chosen, stratified_sample(target, 75, seed + 1))
    # Within a class it is not the first ones: 30 of 300 at random have their mean near 150, within 3 standard errors.
    assert abs(float(chosen[:30].double().mean()) - 149.5) < 3 * 86.6 / 30**0.5
    assert set(chosen.tolist()) <= set(stratified_sample(target, 200, seed).tolist())


@pytest.mark.parametrize("count", [None, 20, 21])
def test_a_sample_that_is_not_smaller_is_the_whole_in_its_order(count):
    assert torch.equal(stratified_sample(torch.arange(20) % 3, count, 0), torch.arange(20))


def test_a_sample_holds_unlabelled_samples_in_their_share_and_of_multilabel_rows_any():
    target = torch.tensor([UNLABELED] * 100 + [0] * 60 + [1] * 40)
    found = target[stratified_sample(target, 20, 0)]
    assert [int((found == value).sum()) for value in (UNLABELED, 0, 1)] == [10, 6, 4]
    rows = torch.zeros(100, 3)
    assert len(stratified_sample(rows, 10, 0)) == 10
    assert not torch.equal(stratified_sample(rows, 10, 0), torch.arange(10))


def test_samples_are_counted_by_class_and_by_label():
    assert samples_per_class(torch.tensor([1, 1, UNLABELED, 0]), "multiclass", 3).tolist() == [1, 2, 0]
    rows = torch.tensor([[1.0, 0, 1], [0, 0, 1], [UNLABELED] * 3])
    assert samples_per_class(rows, "multilabel", 3).tolist() == [1, 0, 2]


# What a source may give

WRONG_SOURCES = {
    "fewer labels than samples": (
        {"train_target": torch.arange(30) % 4},
        r"dataset.source must have a label for each sample of train, got 40 samples and 30 labels",
    ),
    "more labels than samples": (
        {"test_target": torch.arange(9) % 4},
        r"dataset.source must have a label for each sample of test, got 8 samples and 9 labels",
    ),
    "fewer labels than samples of val": (
        {"val": (torch.zeros(8, 1), torch.arange(4))},
        r"dataset.source must have a label for each sample of val, got 8 samples and 4 labels",
    ),
    "int32": (
        {"train_target": (torch.arange(40) % 4).int()},
        r"dataset.source must give torch.int64 labels in train with kind=multiclass, got torch.int32",
    ),
    "float": (
        {"test_target": (torch.arange(8) % 4).float()},
        r"dataset.source must give torch.int64 labels in test with kind=multiclass, got torch.float32",
    ),
    "negative": (
        {"test_target": torch.arange(8) % 4 - 1},
        r"dataset.source must number its classes 0..C-1, got labels -1, 0, 1, 2, 3",
    ),
    "a list of labels": (
        {"train_target": [0, 1, 2, 3] * 10},
        r"dataset.source must give the labels of train as a tensor, got list",
    ),
    "an array of inputs": (
        {"train_inputs": np.zeros((40, 1))},
        r"dataset.source must give the samples of train as tensors, got ndarray",
    ),
    "maps": (
        {"train_target": torch.zeros(40, 4, 4).long()},
        r"dataset.source must give a label or a row of labels for each sample of train, got labels of .*4, 4\]",
    ),
    "another shape of test": (
        {"test_inputs": torch.zeros(8, 2)},
        r"dataset.input_shape must be \[2\], the shape of a sample of test, got \[1\]",
    ),
    "nothing to test on": (
        {"test_inputs": torch.zeros(0, 1), "test_target": torch.zeros(0).long()},
        r"dataset.source must have samples in test, got none",
    ),
    "float64": (
        {"train_inputs": torch.zeros(40, 1).double()},
        r"dataset.source must give uint8 or float32 inputs in train, got torch.float64",
    ),
    "NaN": (
        {"test_inputs": torch.tensor([[0.0]] * 7 + [[float("nan")]])},
        r"dataset.source must give inputs without NaN or Inf in test, got \[nan, nan\]",
    ),
    "Inf": (
        {"train_inputs": torch.tensor([[0.0]] * 39 + [[float("inf")]])},
        r"dataset.source must give inputs without NaN or Inf in train, got \[0.0, inf\]",
    ),
    "other classes than it names": (
        {"classes": ["a", "b", "c"]},
        r"dataset.num_classes must be 3, the classes in the data \(a, b, c\), got 4",
    ),
}


@pytest.mark.parametrize(("changed", "message"), WRONG_SOURCES.values(), ids=WRONG_SOURCES)
def test_a_source_that_breaks_its_contract_is_refused_in_one_line(changed, message):
    parts = {
        "train_inputs": torch.zeros(40, 1), "train_target": torch.arange(40) % 4,
        "test_inputs": torch.zeros(8, 1), "test_target": torch.arange(8) % 4,
    }  # fmt: skip
    assert len(split(Source(**parts), input_shape=[1]).train) == 36
    with pytest.raises(ValueError, match=f"^{message}$"):
        split(Source(**parts | changed), input_shape=[1])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.ones(10, 3).long(), r"must give torch.float32 labels in test with kind=multilabel, got torch.int64"),
        (torch.full((10, 3), 2.0), r"must give labels of 0 and 1 in test, got \[2.0\]"),
        (torch.full((10, 3), torch.nan), r"must give labels of 0 and 1 in test, got \[nan\]"),
    ],
)
def test_multilabel_targets_are_zeros_and_ones(target, message):
    data, _ = multilabel()
    with pytest.raises(ValueError, match=f"^dataset.source {message}$"):
        split(replace(data, test_target=target), kind="multilabel", num_classes=3)


def test_entries_of_multilabel_targets_that_nobody_knows_are_not_inverted_by_label_noise():
    data, _ = multilabel()
    data.train_target[:, 1] = UNLABELED
    parts = split(data, kind="multilabel", num_classes=3, label_noise=1.0)
    assert (parts.train.target[:, 1] == UNLABELED).all()
    assert torch.equal(parts.train.target[:, 0], 1 - data.train_target[parts.train.index, 0])
