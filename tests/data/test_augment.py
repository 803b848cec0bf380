import numpy as np
import pytest
import torch
from scipy import stats

from kdexp.contracts import UNLABELED, Batch
from kdexp.data.augment import CutMix, Cutout, HorizontalFlip, Mixup, RandomCrop, RandomResizedCrop, symmetric_beta
from kdexp.data.stateless_rng import RngStream, uniform

N, H, W = 2_000, 12, 10
PER_SAMPLE = [RandomCrop(3), HorizontalFlip(), Cutout(4, [0.5, 0.5]), RandomResizedCrop()]


def images(n=N, h=H, w=W) -> Batch:
    """Every pixel of an image has a value of its own, above 0."""
    inputs = (torch.arange(1, 2 * h * w + 1) / (2 * h * w)).view(1, 2, h, w).repeat(n, 1, 1, 1)
    return Batch(inputs, torch.arange(n) % 3, torch.arange(n) + 7)


def take(batch: Batch, rows) -> Batch:
    return Batch(batch.inputs[rows], batch.target[rows], batch.index[rows])


def is_even(counts) -> bool:
    return stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("transform", PER_SAMPLE, ids=lambda t: type(t).__name__)
def test_a_sample_is_augmented_alike_in_any_batch(transform):
    batch = images(50)
    rows = torch.tensor([41, 3, 17])
    whole = transform(batch, seed=1, epoch=2)
    part = transform(take(batch, rows), seed=1, epoch=2)
    assert torch.equal(part.inputs, whole.inputs[rows])
    assert torch.equal(part.index, batch.index[rows])
    assert torch.equal(part.target, batch.target[rows])


@pytest.mark.parametrize("transform", [*PER_SAMPLE, Mixup(1.0, 3), CutMix(1.0, 3)], ids=lambda t: type(t).__name__)
def test_seed_and_epoch_change_what_is_done_and_the_global_random_state_does_not(transform):
    batch = images(50)
    batch.inputs *= torch.rand(50, 1, 1, 1)
    before = batch.inputs.clone()
    results = [transform(batch, seed=s, epoch=e).inputs for s, e in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[3])
    assert torch.equal(batch.inputs, before), "the input batch is left alone"


@pytest.mark.parametrize("transform", [*PER_SAMPLE, CutMix(1.0, 3)], ids=lambda t: type(t).__name__)
def test_what_is_no_image_is_refused(transform):
    batch = Batch(torch.zeros(2, 30), torch.zeros(2), torch.arange(2))
    with pytest.raises(ValueError, match=r"^augment: \w+ needs images \(C, H, W\), got inputs of shape \[30\]$"):
        transform(batch, seed=0, epoch=0)


def test_a_crop_is_a_window_of_the_image_in_a_black_frame_all_windows_equally_likely():
    padding, batch = 3, images()
    frame = np.pad(batch.inputs[0].numpy(), ((0, 0), (padding, padding), (padding, padding)))
    windows = {frame[:, y : y + H, x : x + W].tobytes(): y * 7 + x for y in range(2 * padding + 1) for x in range(7)}
    result = RandomCrop(padding)(batch, seed=0, epoch=0).inputs
    which = [windows[image.numpy().tobytes()] for image in result]
    assert is_even(np.bincount(which, minlength=49))


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    batch = images()
    result = HorizontalFlip()(batch, seed=0, epoch=0).inputs.numpy()
    plain = batch.inputs[0].numpy()
    mirrored = np.array([np.array_equal(image, plain[:, :, ::-1]) for image in result])
    kept = np.array([np.array_equal(image, plain) for image in result])
    assert (mirrored ^ kept).all()
    assert stats.binomtest(int(mirrored.sum()), N).pvalue > 0.001


@pytest.mark.parametrize("transform", [RandomCrop(3), HorizontalFlip(), CutMix(1.0, 3)], ids=lambda t: type(t).__name__)
def test_bytes_are_moved_as_numbers_in_0_1_are(transform):
    whole = torch.randint(256, (50, 3, H, W), dtype=torch.uint8)
    ids, labels = torch.arange(50) + 7, torch.zeros(50)
    moved = transform(Batch(whole, labels, ids), seed=1, epoch=2).inputs
    assert moved.dtype == torch.uint8
    assert torch.equal(moved / 255, transform(Batch(whole / 255, labels, ids), seed=1, epoch=2).inputs)


def test_cutout_fills_a_square_around_any_pixel_alike_as_far_as_it_is_in_the_image():
    size, fill, batch = 4, [0.25, 0.75], images(12_000)
    result = Cutout(size, fill)(batch, seed=0, epoch=0).inputs.numpy()
    plain = batch.inputs[0].numpy()
    squares = {}
    for y in range(H):
        for x in range(W):
            covered = plain.copy()
            rows = slice(max(y - size // 2, 0), y - size // 2 + size)
            columns = slice(max(x - size // 2, 0), x - size // 2 + size)
            covered[:, rows, columns] = np.float32(fill)[:, None, None]
            squares[covered.tobytes()] = y * W + x
    counts = np.bincount([squares[image.tobytes()] for image in result], minlength=H * W)
    assert len(squares) == H * W
    assert is_even(counts)


def ramps(n: int, side: int) -> Batch:
    """Channels that hold a pixel's x and y as fractions of the image's sides: a cut-out part says where it was."""
    centre = (torch.arange(side) + 0.5) / side
    inputs = torch.stack([centre.expand(side, side), centre.unsqueeze(1).expand(side, side)])
    return Batch(inputs.repeat(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64), torch.arange(n))


def boxes(transform, n=3_000, side=32) -> tuple[torch.Tensor, torch.Tensor]:
    """Side lengths (n, 2) and first corners (n, 2) of the parts, as x and y in [0, 1]."""
    x, y = transform(ramps(n, side), seed=0, epoch=0).inputs.double().unbind(1)
    lines = torch.stack([x[:, side // 2], y[:, :, side // 2]], 1)
    a, b = side // 4, 3 * side // 4  # inside, where nothing was cut off at the border
    length = (lines[..., b] - lines[..., a]) / (b - a) * side
    return length, lines[..., a] - length * (a + 0.5) / side


def test_a_resized_crop_of_everything_is_the_image_itself():
    batch = images(3)
    same = RandomResizedCrop(scale=(1, 1), ratio=(1, 1))(batch, seed=0, epoch=0).inputs
    torch.testing.assert_close(same, batch.inputs, atol=1e-6, rtol=0)


def test_a_resized_crop_has_the_asked_for_areas_and_shapes_and_lies_in_the_image():
    length, corner = boxes(RandomResizedCrop(scale=(0.2, 0.5), ratio=(0.5, 2.0)))
    area, stretch = length.prod(1), (length[:, 0] / length[:, 1]).log2()
    assert stats.kstest(area, stats.uniform(0.2, 0.3).cdf).pvalue > 0.001
    assert stats.kstest(stretch, stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert corner.min() > -1e-5
    assert (corner + length).max() < 1 + 1e-5
    assert stats.kstest((corner / (1 - length)).flatten(), "uniform").pvalue > 0.001


def test_a_resized_crop_never_leaves_the_image_even_if_it_is_long():
    length, corner = boxes(RandomResizedCrop(scale=(0.9, 1.0), ratio=(0.5, 2.0)))
    assert length.max() <= 1 + 1e-5
    assert corner.min() > -1e-5
    assert (corner + length).max() < 1 + 1e-5


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0])
def test_mixing_shares_are_beta_distributed(alpha):
    u = torch.rand(4_000, 2, generator=torch.Generator().manual_seed(0))
    assert stats.kstest(symmetric_beta(u, alpha), stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_mixing_shares_are_finite_at_the_edges():
    u = torch.tensor([[0.0, 0.0], [1 - 2**-24, 0.25], [1 - 2**-24, 0.0], [1 - 2**-24, 0.5]])
    assert symmetric_beta(u, 0.01).isfinite().all()


def shares(mixed: torch.Tensor) -> torch.Tensor:
    """Of the samples themselves, when their inputs were 1, 10, 100, ..."""
    plain = 10.0 ** torch.arange(len(mixed))
    before = plain.roll(1)
    return (mixed.flatten() - before) / (plain - before)


def powers(target) -> Batch:
    target = torch.as_tensor(target)
    return Batch(10.0 ** torch.arange(len(target)).unsqueeze(1), target, torch.arange(len(target)))


def test_mixup_mixes_class_labels_like_inputs():
    mixed = Mixup(1.0, 3)(powers([2, 0, 1, 1]), seed=0, epoch=0)
    own = shares(mixed.inputs)
    expected = torch.zeros(4, 3)
    for i, (label, partner) in enumerate([(2, 1), (0, 2), (1, 0), (1, 1)]):
        expected[i, label] += own[i]
        expected[i, partner] += 1 - own[i]
    assert own.std() > 0.05
    assert mixed.target.dtype == torch.float32
    torch.testing.assert_close(mixed.target, expected, atol=1e-5, rtol=0)


def test_a_mixed_row_sums_to_the_labelled_share():
    mixed = Mixup(1.0, 3)(powers([2, UNLABELED, UNLABELED, 1]), seed=0, epoch=0)
    own = shares(mixed.inputs)
    torch.testing.assert_close(mixed.target.sum(1), torch.stack([1 + 0 * own[0], 1 - own[1], 0 * own[2], own[3]]))


@pytest.mark.parametrize("columns", [None, 2], ids=["binary", "multilabel"])
def test_mixup_of_sigmoid_targets_is_unlabelled_where_a_partner_is(columns):
    target = torch.tensor([1.0, 0.0, UNLABELED, 1.0, 1.0])
    batch = powers(target.long() if columns is None else target.unsqueeze(1).repeat(1, columns))
    mixed = Mixup(1.0, columns or 1)(batch, seed=0, epoch=0)
    own = shares(mixed.inputs)
    expected = torch.stack([1 + 0 * own[0], 1 - own[1], *torch.tensor([UNLABELED, UNLABELED]), 1 + 0 * own[4]])
    expected = expected if columns is None else expected.unsqueeze(1).repeat(1, columns)
    torch.testing.assert_close(mixed.target, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", [Mixup, CutMix])
def test_an_alpha_that_is_not_positive_is_refused(transform):
    with pytest.raises(ValueError, match=rf"^augment: alpha of {transform.__name__} must be > 0, got 0$"):
        transform(0, 3)


def plain_images(target, h=H, w=W) -> Batch:
    """Image i has the value i everywhere."""
    target = torch.as_tensor(target)
    return Batch(
        torch.arange(1.0 * len(target)).view(-1, 1, 1, 1).repeat(1, 2, h, w), target, torch.arange(len(target))
    )


def test_cutmix_puts_a_rectangle_of_the_partner_where_and_as_large_as_was_drawn():
    n, alpha, length = 200, 0.7, (H, W)
    cut = CutMix(alpha, 3)(plain_images(torch.arange(n) % 3), seed=5, epoch=2)
    u = uniform(5, 2, torch.arange(n), 4, RngStream.CUTMIX)
    share = symmetric_beta(u[:, :2], alpha).tolist()
    for i in range(n):
        expected = np.full(length, float(i))
        side = [int(n_pixels * np.sqrt(1 - share[i])) for n_pixels in length]
        first = [int(u[i, 2 + axis] * length[axis]) - side[axis] // 2 for axis in (0, 1)]
        rows, columns = (slice(max(a, 0), max(a + b, 0)) for a, b in zip(first, side, strict=True))
        expected[rows, columns] = (i - 1) % n
        np.testing.assert_array_equal(cut.inputs[i], np.stack([expected, expected]))


def test_cutmix_mixes_labels_by_the_area_that_is_in_the_image():
    n = 500
    cut = CutMix(1.0, 3)(plain_images(torch.arange(n) % 3), seed=0, epoch=0)
    own = (cut.inputs[:, 0] == torch.arange(n).view(n, 1, 1)).double().mean((1, 2))
    expected = torch.zeros(n, 3, dtype=torch.float64)
    expected[range(n), torch.arange(n) % 3] += own
    expected[range(n), torch.arange(n).roll(1) % 3] += 1 - own
    assert cut.target.dtype == torch.float32
    torch.testing.assert_close(cut.target.double(), expected, atol=1e-6, rtol=0)
    assert len(own.unique()) > 30
    assert own.mean() > 0.5, "what leaves the image is cut off"


def test_cutmix_of_sigmoid_targets_is_unlabelled_where_a_partner_is():
    cut = CutMix(1.0, 1)(plain_images([1, 0, UNLABELED, 1]), seed=0, epoch=0)
    own = (cut.inputs[:, 0] == torch.arange(4).view(4, 1, 1)).float().mean((1, 2))
    expected = torch.stack([1 + 0 * own[0], 1 - own[1], *torch.tensor([UNLABELED, UNLABELED])])
    torch.testing.assert_close(cut.target, expected, atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("transform", [*PER_SAMPLE, Mixup(0.4, 3), CutMix(0.4, 3)], ids=lambda t: type(t).__name__)
def test_a_gpu_does_the_same(gpu, transform):
    batch = images(50)
    there = transform(Batch(batch.inputs.cuda(), batch.target.cuda(), batch.index.cuda()), seed=1, epoch=2)
    torch.testing.assert_close(there.inputs.cpu(), transform(batch, seed=1, epoch=2).inputs, atol=1e-6, rtol=0)
