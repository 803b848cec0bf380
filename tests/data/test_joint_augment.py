import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from kdexp.contracts import ABSENT, UNLABELED, VOID, Batch
from kdexp.data import augment, shapes
from kdexp.data.joint_augment import Crop, HorizontalFlip, Rotate, Scale, VerticalFlip

N, H, W = 400, 15, 12
TRANSFORMS = [Crop([6, 7]), Crop([20, 9]), HorizontalFlip(), VerticalFlip(), Rotate(180), Scale(0.7, 1.4)]
COPIES = [Crop([6, 7]), HorizontalFlip(), VerticalFlip()]  # pixels are moved as they are
each = pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)


def a_batch(n=50, h=H, w=W) -> Batch:
    """Images that show shapes, and their masks, in which there is all that a mask may have."""
    source = shapes.load((2, h, w), 4, n, 1, void_fraction=0.1, unlabeled_fraction=0.1)
    masks = source.train_target.long()
    masks[:, :, -1] = ABSENT
    return Batch(source.train_inputs / 255, masks, torch.arange(n) + 7)


def places(n, h=H, w=W) -> Batch:
    """Images of where a pixel is: its column and its row, as fractions of 100; the mask has the column."""
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    images = torch.stack((column, row)).expand(n, 2, h, w) / 100
    return Batch(images.clone(), column.expand(n, h, w).clone(), torch.arange(n))


def take(batch: Batch, rows) -> Batch:
    return Batch(batch.inputs[rows], batch.target[rows], batch.index[rows])


@each
def test_a_sample_is_augmented_alike_in_any_batch(transform):
    batch = a_batch()
    rows = torch.tensor([41, 3, 17])
    whole = transform(batch, seed=1, epoch=2)
    for some in (rows, rows[:1]):
        part = transform(take(batch, some), seed=1, epoch=2)
        assert torch.equal(part.inputs, whole.inputs[some])
        assert torch.equal(part.target, whole.target[some])
        assert torch.equal(part.index, batch.index[some])


@each
def test_seed_and_epoch_change_what_is_done_and_the_input_is_left_alone(transform):
    batch = a_batch()
    before = Batch(batch.inputs.clone(), batch.target.clone())
    results = [transform(batch, seed=s, epoch=e) for s, e in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert torch.equal(results[0].inputs, results[1].inputs)
    assert torch.equal(results[0].target, results[1].target)
    for other in results[2:]:
        assert not torch.equal(results[0].inputs, other.inputs)
        assert not torch.equal(results[0].target, other.target)
    assert torch.equal(batch.inputs, before.inputs)
    assert torch.equal(batch.target, before.target)


@each
def test_a_mask_has_what_it_had_and_absent_pixels(transform):
    batch = a_batch()
    target = transform(batch, seed=0, epoch=0).target
    assert target.dtype == torch.int64
    assert target.unique().tolist() == [ABSENT, VOID, UNLABELED, 0, 1, 2, 3]


@pytest.mark.parametrize("transform", COPIES, ids=lambda t: type(t).__name__)
def test_an_image_that_is_its_mask_stays_its_mask(transform):
    masks = a_batch().target
    images = (masks.unsqueeze(1) + 3).to(torch.uint8)
    result = transform(Batch(images, masks, torch.arange(50)), seed=0, epoch=0)
    assert transform.moves_pixels
    assert result.inputs.dtype == torch.uint8
    assert torch.equal(result.inputs[:, 0].long() - 3, result.target)


@pytest.mark.parametrize("transform", [Rotate(180), Scale(0.5, 2.0)], ids=lambda t: type(t).__name__)
def test_an_image_that_is_its_mask_differs_from_it_by_what_is_between_two_pixels(transform):
    """A bilinear image of a plane is that plane, and a nearest pixel is half a pixel away at most."""
    result = transform(places(N), seed=0, epoch=0)
    column = 100 * result.inputs[:, 0]
    exists = result.target != ABSENT
    # At the border the plane ends in the middle of the last pixel.
    assert ((column - result.target).abs()[exists] <= 0.5 + 1e-4).all()
    assert (result.inputs.amax(1)[~exists] == 0).all()
    assert 0.05 < (~exists).float().mean() < 0.5


def test_a_crop_is_a_window_all_windows_equally_likely():
    h, w = 12, 9
    result = Crop([h, w], foreground=0.0)(places(2_000), seed=0, epoch=0)
    corner = (100 * result.inputs[:, :, 0, 0]).round().long()
    for image, mask, (x, y) in zip(result.inputs, result.target, corner.tolist(), strict=True):
        whole = places(1)
        assert torch.equal(image, whole.inputs[0, :, y : y + h, x : x + w])
        assert torch.equal(mask, whole.target[0, y : y + h, x : x + w])
    counts = np.bincount(corner[:, 1] * 4 + corner[:, 0], minlength=16)
    assert stats.chisquare(counts).pvalue > 0.001


def one_pixel(n=3_000, h=40, w=40):
    """Masks of two foreground pixels of class 1 and 2 and some of a third class, far from each other."""
    masks = torch.zeros(n, h, w, dtype=torch.int64)
    masks[:, 10, 12], masks[:, 30, 5] = 1, 2
    masks[:, 20:24, 30:34] = 4
    masks[:, 0] = UNLABELED
    return Batch(masks.unsqueeze(1).float(), masks, torch.arange(n))


def test_the_share_of_crops_around_foreground_is_what_was_asked_for():
    batch = one_pixel()
    chance = (Crop([5, 5], foreground=0.0)(batch, seed=0, epoch=0).target > 0).flatten(1).any(1).float().mean().item()
    for share in (0.0, 1 / 3, 0.8, 1.0):
        found = (Crop([5, 5], foreground=share)(batch, seed=1, epoch=0).target > 0).flatten(1).any(1)
        expected = share + (1 - share) * chance
        # The chance itself was measured.
        assert stats.binomtest(int(found.sum()), len(found), min(expected, 1.0)).pvalue > 0.001
    assert found.all()
    assert Crop([5, 5]).foreground == 1 / 3


def test_foreground_classes_are_drawn_evenly_and_so_are_the_pixels_of_one():
    middle = Crop([5, 5], foreground=1.0)(one_pixel(), seed=0, epoch=0).target[:, 2, 2]
    counts = middle.bincount(minlength=5).tolist()
    assert counts[0] == counts[3] == 0
    assert stats.chisquare([counts[1], counts[2], counts[4]]).pvalue > 0.001
    batch = one_pixel()
    batch.inputs = torch.arange(40 * 40).view(1, 1, 40, 40).expand(3_000, 1, 40, 40).float()
    pixel = Crop([5, 5], foreground=1.0)(batch, seed=0, epoch=0).inputs[:, 0, 2, 2][middle == 4].long()
    which = (pixel // 40 - 20) * 4 + pixel % 40 - 30
    assert stats.chisquare(which.bincount(minlength=16).tolist()).pvalue > 0.001


def test_a_crop_around_foreground_at_the_border_stays_in_the_image():
    masks = torch.zeros(20, 9, 9, dtype=torch.int64)
    masks[:10, 0, 8] = masks[10:, 8, 0] = 1
    result = Crop([4, 6], foreground=1.0)(Batch(torch.zeros(20, 1, 9, 9), masks, torch.arange(20)), seed=0, epoch=0)
    assert (result.target[:10, 0, 5] == 1).all()
    assert (result.target[10:, 3, 0] == 1).all()
    assert result.target.min() == 0


def test_a_crop_of_a_mask_without_foreground_is_any_window():
    batch = places(500)
    batch.target = torch.where(batch.target % 2 == 0, 0, VOID)
    around, anywhere = (Crop([4, 4], share)(batch, seed=0, epoch=0) for share in (1.0, 0.0))
    assert torch.equal(around.inputs, anywhere.inputs)
    assert torch.equal(around.target, anywhere.target)


def test_a_smaller_image_is_padded_at_the_right_and_bottom():
    batch = places(3)
    result = Crop([H + 2, W + 5])(batch, seed=0, epoch=0)
    assert torch.equal(result.inputs[:, :, :H, :W], batch.inputs)
    assert torch.equal(result.target[:, :H, :W], batch.target)
    for beyond in (np.s_[:, H:], np.s_[:, :, W:]):
        assert (result.target[beyond] == ABSENT).all()
        assert (result.inputs.amax(1)[beyond] == 0).all()


@pytest.mark.parametrize(("transform", "axis"), [(HorizontalFlip(), 2), (VerticalFlip(), 1)])
def test_a_flip_mirrors_half_of_the_images(transform, axis):
    batch = places(N)
    result = transform(batch, seed=0, epoch=0)
    plain = batch.inputs[0]
    mirrored = torch.tensor([torch.equal(image, plain.flip(axis)) for image in result.inputs])
    kept = torch.tensor([torch.equal(image, plain) for image in result.inputs])
    assert (mirrored ^ kept).all()
    assert stats.binomtest(int(mirrored.sum()), N).pvalue > 0.001


def test_flips_are_drawn_apart_and_the_horizontal_one_as_without_masks():
    batch = places(N)
    across = HorizontalFlip()(batch, seed=3, epoch=1)
    assert torch.equal(across.inputs, augment.HorizontalFlip()(batch, seed=3, epoch=1).inputs)
    down = VerticalFlip()(batch, seed=3, epoch=1)
    table = stats.contingency.crosstab(across.inputs[:, 0, 0, 0] > 0.05, down.inputs[:, 1, 0, 0] > 0.05).count
    assert table.shape == (2, 2)
    assert stats.chi2_contingency(table).pvalue > 0.001


def source_of_middle(result: Batch):
    """How the places around the middle of images of odd sizes were moved: (N, 2, 2), from (x, y) to where they were."""
    y, x = (side // 2 for side in result.inputs.shape[2:])
    at = 100 * result.inputs
    return torch.stack((at[:, :, y, x + 1] - at[:, :, y, x - 1], at[:, :, y + 1, x] - at[:, :, y - 1, x]), 2) / 2


def test_a_rotation_is_that_of_scipy_and_its_angles_are_even():
    n, side = 300, 31
    batch = places(n, side, side)
    moved = source_of_middle(Rotate(60)(batch, seed=0, epoch=0))
    angle = torch.atan2(moved[:, 1, 0], moved[:, 0, 0]).rad2deg()
    assert stats.kstest(angle / 60, stats.uniform(-1, 2).cdf).pvalue > 0.001
    np.testing.assert_allclose(moved @ moved.mT, torch.eye(2).expand(n, 2, 2), atol=1e-3)

    picture = a_batch(1, side, side)
    images, masks = picture.inputs.expand(n, 2, side, side), picture.target.expand(n, side, side)
    result = Rotate(60)(Batch(images, masks, torch.arange(n)), seed=0, epoch=0)
    for i in range(5):
        expected = ndimage.rotate(images[0, 0], angle[i].item(), reshape=False, order=1, mode="nearest")
        exists = ndimage.binary_erosion(result.target[i] != ABSENT, border_value=1)
        np.testing.assert_allclose(result.inputs[i, 0][exists], expected[exists], atol=2e-3)
        turned = {"reshape": False, "order": 0, "mode": "grid-constant", "cval": ABSENT}
        nearest = ndimage.rotate(masks[0], angle[i].item(), **turned)
        assert (nearest == result.target[i].numpy()).mean() > 0.995  # but where two pixels are equally near


def test_a_quarter_turn_loses_nothing_not_even_where_the_mask_is_absent(monkeypatch):
    monkeypatch.setattr("kdexp.data.joint_augment.uniform", lambda *_: torch.full((N, 1), 0.75))  # + 90 of 180
    batch = places(N, 12, 12)
    batch.target[:, 3] = ABSENT
    result = Rotate(180)(batch, seed=0, epoch=0)
    quarters = 1 if result.inputs[0, 1, 0, 0] < 0.05 else 3
    assert torch.equal(result.target, torch.rot90(batch.target, quarters, (1, 2)))
    np.testing.assert_allclose(result.inputs, torch.rot90(batch.inputs, quarters, (2, 3)), atol=1e-5)


def test_scales_are_even_in_the_logarithm_and_alike_in_both_directions():
    moved = source_of_middle(Scale(0.5, 2.0)(places(N, 15, 21), seed=0, epoch=0))
    np.testing.assert_allclose(moved[:, 0, 0], moved[:, 1, 1], atol=1e-3)
    np.testing.assert_allclose(moved[:, 0, 1], 0, atol=1e-3)
    np.testing.assert_allclose(moved[:, 1, 0], 0, atol=1e-3)
    assert stats.kstest(moved[:, 0, 0].log2(), stats.uniform(-1, 2).cdf).pvalue > 0.001


@each
def test_what_is_no_image_or_has_no_mask_of_its_size_is_refused(transform):
    name = type(transform).__name__
    with pytest.raises(ValueError, match=rf"^augment: {name} needs images \(C, H, W\), got inputs of shape \[30\]$"):
        transform(Batch(torch.zeros(2, 30), torch.zeros(2), torch.arange(2)), seed=0, epoch=0)
    rule = rf"^augment: {name} needs masks \[5, 4\], as its images are, got targets of shape \[{{}}\]$"
    for shape in ((2,), (2, 4, 5)):
        with pytest.raises(ValueError, match=rule.format(", ".join(map(str, shape[1:])))):
            transform(Batch(torch.zeros(2, 1, 5, 4), torch.zeros(shape), torch.arange(2)), seed=0, epoch=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop([0, 3]), "size of Crop must be height and width, each >= 1, got [0, 3]"),
        (lambda: Crop([3]), "size of Crop must be height and width, each >= 1, got [3]"),
        (lambda: Crop([3, 3], 1.5), "foreground of Crop must be in [0, 1], got 1.5"),
        (lambda: Rotate(0), "degrees of Rotate must be in (0, 180], got 0"),
        (lambda: Rotate(181), "degrees of Rotate must be in (0, 180], got 181"),
        (lambda: Scale(0, 1), "low and high of Scale must be 0 < low <= high, got 0 and 1"),
        (lambda: Scale(1.2, 1.1), "low and high of Scale must be 0 < low <= high, got 1.2 and 1.1"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value) == f"augment: {message}"


def test_masks_of_bytes_keep_every_class_when_they_are_resampled():
    masks = torch.arange(126, dtype=torch.int8).view(126, 1, 1).repeat(1, 4, 4)
    batch = Batch(torch.rand(126, 3, 4, 4), masks, torch.arange(126))
    assert torch.equal(Scale(1.0, 1.0)(batch, seed=0, epoch=0).target, masks)
