"""Masks as targets: what a data set with masks must be, how it is split, and what becomes of them in a batch."""

from dataclasses import replace

import pytest
import torch

from kdexp.contracts import ABSENT, UNLABELED, VOID, Source
from kdexp.data.data_module import DataModule
from kdexp.data.joint_augment import Crop
from kdexp.data.masks import check_masks, classes_in
from kdexp.data.splits import few_of_each_class, labelled, make_splits, samples_per_class


def source(n=10, size=8, classes=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    masks = torch.randint(classes, (n, size, size), generator=generator, dtype=torch.int8)
    return Source(images, masks, images[:4], masks[:4])


def split(given, **settings):
    settings = {"kind": "multiclass", "num_classes": 3, "val_fraction": 0.2, "split_seed": 0} | settings
    return make_splits(given, check=check_masks, **settings)


def test_masks_are_split_at_random_and_their_counts_are_exact():
    splits = split(source(), train_fraction=0.5)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [4, 2, 4]
    assert not set(splits.train.index.tolist()) & set(splits.val.index.tolist())
    assert torch.equal(splits.train.target, source().train_target[splits.train.index])
    other = split(source(), split_seed=1)
    assert other.val.index.tolist() != splits.val.index.tolist()


def test_hidden_masks_have_no_class_and_keep_what_does_not_exist():
    given = source()
    given.train_target[:, 0] = ABSENT
    given.train_target[:, 1] = VOID
    train = split(given, unlabeled_fraction=0.5).train
    known = labelled(train.target)
    assert known.sum() == 4
    assert torch.equal(train.target[known], given.train_target[train.index[known]])
    assert (train.target[~known][:, 0] == ABSENT).all()
    assert (train.target[~known][:, 1] == VOID).all()
    assert (train.target[~known][:, 2:] == UNLABELED).all()


@pytest.mark.parametrize(("changed", "settings", "message"), [
    ({"train_target": torch.zeros(10, 8, 9, dtype=torch.int8)}, {},
     r"dataset.source must give masks of the size of their images in train, got images \[3, 8, 8\] and masks \[8, 9\]"),
    ({"train_target": torch.zeros(10, dtype=torch.int64)}, {},
     r"dataset.source must give masks \(N, H, W\) of whole numbers in train, for task=segmentation, got targets of "
     r"shape \[10\]"),
    ({"test_target": torch.full((4, 8, 8), 3, dtype=torch.int8)}, {},
     r"dataset.source must give masks of 0..2, -1, -2 and -3 in test, got values \[3\]"),
    ({"classes": ["sky", "road", "tree"], "train_target": torch.zeros(10, 8, 8, dtype=torch.int8)}, {},
     "dataset.source must have every class in some mask of train, got no pixel of road, tree"),
    ({"classes": ["sky", "road"]}, {}, r"dataset.num_classes must be 2, the classes in the data \(sky, road\), got 3"),
    ({}, {"kind": "binary"}, "dataset.num_classes must be 2 with kind=binary, got 3"),
    ({}, {"kind": "multilabel"}, "dataset.kind must be multiclass or binary for masks, got multilabel"),
    ({}, {"input_shape": [1, 4, 4]},
     r"dataset.input_shape must have the channels of an image of train, of shape \[3, 8, 8\], got \[1, 4, 4\]"),
    ({}, {"label_noise": 0.1}, "dataset.label_noise must be 0 for targets that are not one label, .* got 0.1"),
    ({}, {"imbalance_ratio": 2.0}, "dataset.imbalance_ratio must be 1 for targets that are not one label, .* got 2.0"),
    ({"train_inputs": torch.zeros(9, 3, 8, 8, dtype=torch.uint8)}, {},
     "dataset.source must have a label for each sample of train, got 9 samples and 10 labels"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(changed, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        split(replace(source(), **changed), **settings)


def test_a_class_that_a_subset_leaves_out_is_refused():
    given = source()
    given.train_target[:] = 0
    given.train_target[0, 0, :2] = torch.tensor([1, 2], dtype=torch.int8)
    rule = "must leave masks with every class .class 1 has none."
    with pytest.raises(ValueError, match=rf"^dataset.(val_fraction|train_fraction) {rule}, got 0.[12]$"):
        split(given, train_fraction=0.2)


def test_images_of_test_may_be_larger_than_what_is_trained_on():
    given = source()
    large = replace(given, test_inputs=torch.zeros(1, 3, 12, 9, dtype=torch.uint8),
                    test_target=torch.zeros(1, 12, 9, dtype=torch.int8))  # fmt: skip
    assert split(large, input_shape=[3, 4, 4]).test.inputs.shape == (1, 3, 12, 9)


def test_pixels_are_counted_by_class_and_only_those_that_have_one():
    masks = torch.tensor([[[0, 1], [1, UNLABELED]], [[VOID, ABSENT], [2, 2]]], dtype=torch.int8)
    assert samples_per_class(masks, "multiclass", 4).tolist() == [1, 2, 2, 0]
    assert classes_in(masks) == [ABSENT, VOID, UNLABELED, 0, 1, 2]


def test_a_quick_run_takes_some_of_the_masks():
    train = split(source()).train
    some = few_of_each_class(train, 3)
    assert len(some) == 3
    assert torch.equal(some.target, source().train_target[some.index])


def module(**settings):
    given = {"augment": [Crop([4, 6])], "mean": [0.5], "std": [0.25], "batch_size": 4, "eval_batch_size": 2,
             "drop_last": True, "seed": 0, "input_shape": [3, 4, 6]}  # fmt: skip
    return DataModule(split(source()), **given | settings)


def test_training_sees_crops_and_evaluation_whole_images():
    data = module()
    (first, second) = data.epochs("cpu")(0)
    assert first.inputs.shape == second.inputs.shape == (4, 3, 4, 6)
    assert first.target.shape == (4, 4, 6)
    assert first.target.dtype == torch.int64
    for name in ("val", "test"):
        batch = next(iter(data.eval_batches(name, "cpu")))
        assert batch.inputs.shape == (2, 3, 8, 8)
        assert torch.equal(batch.target, getattr(data.splits, name).target[:2].long())


def test_a_crop_is_of_image_and_mask_at_once_and_of_the_view_alone():
    data, again = module(views=2), module(views=2)
    batches = list(data.epochs("cpu")(0))
    for here, there in zip(batches, again.epochs("cpu")(2), strict=True):
        by_id = {int(i): place for place, i in enumerate(there.index)}
        shared = [place for place, i in enumerate(here.index) if int(i) in by_id]
        for place in shared:
            assert torch.equal(here.inputs[place], there.inputs[by_id[int(here.index[place])]])
            assert torch.equal(here.target[place], there.target[by_id[int(here.index[place])]])
    images, masks = data.splits.train.inputs, source().train_target
    for batch in batches:
        for image, mask, index in zip(batch.inputs * 0.25 + 0.5, batch.target, batch.index, strict=True):
            windows = images[index].unfold(1, 4, 1).unfold(2, 6, 1)  # (3, 5, 3, 4, 6)
            wanted = (image * 255).round().to(torch.uint8)
            (found,) = (windows == wanted[:, None, None]).all(0).all(-1).all(-1).nonzero().tolist()
            top, left = found
            assert torch.equal(mask, masks[index, top : top + 4, left : left + 6].long())


def test_what_is_trained_on_has_the_shape_that_is_set():
    rule = "must be .3, 4, 6., the shape of a training sample after its augmentation"
    with pytest.raises(ValueError, match=rf"^dataset.input_shape {rule}, got \[3, 8, 8\]$"):
        module(input_shape=[3, 8, 8])
