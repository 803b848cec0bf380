"""Which test images a run shows, and what it keeps of them."""

import numpy as np
import torch

from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch, Split
from kdexp.experiment.mask_collector import MaskCollector, spread
from kdexp.report.mask_examples import read


def masks(*shares, size=10):
    """Of a row of so many pixels, this many of class 1."""
    return torch.tensor([[[1] * share + [0] * (size - share)] for share in shares])


def test_images_are_chosen_from_little_to_much_foreground():
    assert spread(masks(7, 0, 3, 9, 5, 1, 2, 8), 4) == [5, 2, 0, 3]  # sorted: 0 [1] 2 [3] 5 [7] 8 [9]
    assert spread(masks(4, 2), 4) == [1, 0]
    assert spread(masks(3, 3, 3, 3, 3, 3), 3) == [1, 3, 5]


def test_pixels_without_a_label_do_not_count():
    target = masks(4, 5)
    target[0, 0, 4:] = torch.tensor([UNLABELED, VOID, ABSENT, ABSENT, ABSENT, 0])  # 4 of 5 that are labelled
    assert spread(target, 2) == [1, 0]


def collected(images, target, kind, classes, folder, *, batch=2, teacher=True):
    """A network and a teacher of random logits over all batches: what was kept, and the logits by sample."""
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(len(target)).flip(0) + 3  # ids that are not places
    inputs = torch.cat([torch.zeros(3, *images.shape[1:], dtype=images.dtype), images.flip(0)])
    logits = [torch.randn(len(target), classes, *target.shape[1:], generator=generator) for _ in range(2)]
    collector = MaskCollector(Split(inputs, target, index), kind)
    for first in range(0, len(target), batch):
        part = slice(first, first + batch)
        given = Batch(images[part].float(), target[part], index[part])
        collector(given, logits[0][part], logits[1][part] if teacher else None)
    return collector.save(folder), logits, index.tolist()


def test_the_masks_are_those_of_the_chosen_images(tmp_path):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (9, 3, 5, 7), generator=generator, dtype=torch.uint8)
    target = torch.randint(-3, 4, (9, 5, 7), generator=generator)
    found, (student, teacher), index = collected(images, target, "multiclass", 4, tmp_path)
    assert len(found) == 4
    for example in found:
        place = index.index(example.sample)
        assert np.array_equal(example.image, images[place])
        assert np.array_equal(example.truth, target[place])
        assert list(example.predictions) == ["teacher", "student"]
        assert np.array_equal(example.predictions["student"], student[place].argmax(0))
        assert np.array_equal(example.predictions["teacher"], teacher[place].argmax(0))
    assert all(own.shows_the_same_as(other) for own, other in zip(found, read(tmp_path, 4), strict=True))


def test_a_logit_above_0_is_class_1_and_without_a_teacher_there_is_none(tmp_path):
    images, target = torch.zeros(2, 1, 5, 7, dtype=torch.uint8), torch.randint(0, 2, (2, 5, 7))
    found, (student, _), index = collected(images, target, "binary", 1, tmp_path, teacher=False)
    for example in found:
        assert list(example.predictions) == ["student"]
        assert np.array_equal(example.predictions["student"], student[index.index(example.sample)][0] > 0)


def test_large_images_are_made_smaller_and_their_masks_have_no_new_classes(tmp_path):
    images = torch.full((1, 3, 1024, 600), 90, dtype=torch.uint8)
    target = torch.zeros(1, 1024, 600, dtype=torch.int64)
    target[:, 512:] = 3
    ((example,), (student, _), _) = collected(images, target, "multiclass", 4, tmp_path)
    assert example.image.shape == (3, 512, 300)
    assert (example.image == 90).all()
    assert (example.truth[:256] == 0).all()
    assert (example.truth[256:] == 3).all()
    assert np.array_equal(example.predictions["student"], student[0].argmax(0)[1::2, 1::2])


def test_images_of_many_channels_and_of_any_range_are_gray(tmp_path):
    images = torch.zeros(1, 2, 1, 3)
    images[0, :, 0] = torch.tensor([[-1.0, 0.0, 3.0], [-1.0, 2.0, 3.0]])
    ((example,), _, _) = collected(images, masks(1, size=3), "multiclass", 2, tmp_path)
    assert example.image.tolist() == [[[0, 128, 255]]]
