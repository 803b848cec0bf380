from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from kdexp.data import digits, mnist, mnist8


def by_loops(image) -> np.ndarray:
    """The square around the ink as a bitmap of 32 x 32, and the ink in its blocks of 4 x 4."""
    ink = image >= 64
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    top, bottom, left, right = (int(i) for i in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    side = max(bottom - top, right - left)
    y, x = (Fraction(a + b, 2) - Fraction(side, 2) for a, b in ((top, bottom), (left, right)))
    bitmap = np.zeros((32, 32), int)
    for r, c in np.ndindex(32, 32):
        i, j = (floor(start + (k + Fraction(1, 2)) * side / 32) for start, k in ((y, r), (x, c)))
        bitmap[r, c] = 0 <= i < image.shape[0] and 0 <= j < image.shape[1] and ink[i, j]
    counts = np.array([[bitmap[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].sum() for c in range(8)] for r in range(8)])
    return np.floor(counts * 255 / 16 + 0.5)


def test_images_are_reduced_as_loops_do_it():
    generator = np.random.default_rng(0)
    images = np.zeros((40, 28, 28), np.uint8)
    for image in images:
        top, left = generator.integers(0, 26, 2)
        h, w = generator.integers(1, 29 - top), generator.integers(1, 29 - left)
        image[top : top + h, left : left + w] = generator.integers(0, 256, (h, w))
        image[top, left] = 255
    found = mnist8.reduced(torch.from_numpy(images).unsqueeze(1))
    assert found.dtype == torch.uint8
    assert tuple(found.shape) == (40, 1, 8, 8)
    for image, small in zip(images, found[:, 0].numpy(), strict=True):
        np.testing.assert_array_equal(small, by_loops(image))


def test_a_full_square_is_full_wherever_it_stands():
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    images[0, 0, 4:24, 4:24] = 64
    images[1, 0, 1:8, 20:27] = 255
    assert (mnist8.reduced(images) == 255).all()


def test_a_line_keeps_its_place_and_its_share_of_the_width():
    # One pixel of 16 is two columns of 32, one in each of the middle blocks: 4 of 16 pixels, 63.75 of 255.
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    images[0, 0, 6:22, 9] = 200
    expected = torch.zeros(8, 8, dtype=torch.uint8)
    expected[:, 3:5] = 64
    assert torch.equal(mnist8.reduced(images)[0, 0], expected)


def test_faint_pixels_are_not_ink():
    images = torch.full((1, 1, 28, 28), 63, dtype=torch.uint8)
    images[0, 0, 10:14, 10:14] = 64
    assert (mnist8.reduced(images) == 255).all()


def test_both_parts_are_those_of_mnist_reduced(real_data):
    data_dir = real_data("mnist")
    whole, small = mnist.load(data_dir), mnist8.load(data_dir)
    for part in ("train", "test"):
        assert torch.equal(getattr(small, f"{part}_target"), getattr(whole, f"{part}_target"))
        images, found = getattr(whole, f"{part}_inputs"), getattr(small, f"{part}_inputs")
        for i in range(0, len(images), 2000):
            np.testing.assert_array_equal(found[i, 0], by_loops(images[i, 0].numpy()))


def nearest(classifier, inputs):
    """The class of the nearest mean image."""
    flat = inputs.flatten(1).float()
    means = torch.stack([classifier[0].flatten(1).float()[classifier[1] == c].mean(0) for c in range(10)])
    return torch.cdist(flat, means).argmin(1)


@pytest.mark.parametrize("flip", [False, True])
def test_it_is_another_domain_of_the_task_of_the_digits(real_data, flip):
    """Mean images of one tell the characters of the other apart, if only they are the right way round."""
    here, there = digits.load(), mnist8.load(real_data("mnist8"))
    assert {int(v) for v in there.train_inputs.unique()} == {int(v) for v in here.train_inputs.unique()}
    assert abs(there.train_inputs.float().mean() - here.train_inputs.float().mean()) / 255 < 0.01
    shown = there.test_inputs.flip(2) if flip else there.test_inputs
    right = (nearest((here.train_inputs, here.train_target), shown) == there.test_target).float().mean()
    assert right < 0.4 if flip else right > 0.5
