"""Against torchvision's RandAugment: what it makes of an image, drawn often enough to have seen all of it."""

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from kdexp.contracts import Batch
from kdexp.data.rand_augment import RandAugment


def image(channels=3, h=18, w=20):
    return torch.randint(30, 220, (channels, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batch_of(images) -> Batch:
    return Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)) + 7)


def made_by_torchvision(given, magnitude, draws=300) -> torch.Tensor:
    """All different images."""
    torch.manual_seed(0)
    transform = v2.RandAugment(1, magnitude)
    return torch.stack([transform(given) for _ in range(draws)]).unique(dim=0).int()


def made(given, *settings, n) -> torch.Tensor:
    return RandAugment(*settings)(batch_of(given.repeat(n, 1, 1, 1)), seed=0, epoch=0).inputs


def same(found, expected) -> torch.Tensor:
    """Which are which, up to one level: torchvision's strengths are rounded to float32."""
    return (found.int().unsqueeze(1) - expected.unsqueeze(0)).abs().amax((2, 3, 4)) <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_an_image_becomes_all_that_torchvision_makes_of_it_and_nothing_else(magnitude, channels):
    given = image(channels)
    are_same = same(made(given, 1, magnitude, n=300), made_by_torchvision(given, magnitude))
    assert are_same.any(1).all()
    assert are_same.any(0).all()


def test_operations_and_directions_are_drawn_evenly():
    counts = made(image(), 1, 9, n=2_800).unique(dim=0, return_counts=True)[1]
    assert stats.chisquare(counts.sort().values, [100] * 18 + [200] * 5).pvalue > 0.001  # nine have two directions


def test_operations_follow_each_other():
    given = image()
    first = made_by_torchvision(given, 0)
    both = torch.cat([made_by_torchvision(each.byte(), 0) for each in first]).unique(dim=0)
    assert len(both) > len(first) > 1
    assert same(made(given, 2, 0, n=300), both).any(1).all()


def test_a_sample_is_augmented_alike_in_any_batch_and_anew_in_each_epoch():
    generator = torch.Generator().manual_seed(1)
    batch = batch_of(torch.randint(256, (50, 3, 10, 12), dtype=torch.uint8, generator=generator))
    before, rows = batch.inputs.clone(), torch.tensor([41, 3, 17])
    part = Batch(batch.inputs[rows], batch.target[rows], batch.index[rows])
    transform = RandAugment(2, 9)
    whole = transform(batch, seed=1, epoch=2).inputs
    assert torch.equal(transform(part, seed=1, epoch=2).inputs, whole[rows])
    assert not torch.equal(transform(batch, seed=1, epoch=3).inputs, whole)
    assert not torch.equal(transform(batch, seed=2, epoch=2).inputs, whole)
    assert torch.equal(batch.inputs, before), "the input batch is left alone"


def test_numbers_in_0_1_become_what_bytes_do():
    batch = batch_of(image().repeat(50, 1, 1, 1))
    moved = RandAugment()(batch, seed=0, epoch=0).inputs
    of_floats = RandAugment()(batch_of(batch.inputs / 255), seed=0, epoch=0).inputs
    assert of_floats.dtype == torch.float32
    assert torch.equal(of_floats, moved / 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_ops": 0}, r"^augment: num_ops of RandAugment must be at least 1, got 0$"),
        ({"magnitude": 31}, r"^augment: magnitude of RandAugment must be in \[0, 30\], got 31$"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**settings)


@pytest.mark.parametrize("shape", [(30,), (4, 8, 8)])
def test_what_is_no_image_of_one_or_three_channels_is_refused(shape):
    with pytest.raises(ValueError, match=r"^augment: RandAugment needs images (\(C, H, W\)|of 1 or 3 channels), got "):
        RandAugment()(batch_of(torch.zeros(2, *shape)), seed=0, epoch=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_does_the_same():
    batch = batch_of(image().repeat(50, 1, 1, 1))
    there = Batch(batch.inputs.cuda(), batch.target.cuda(), batch.index.cuda())
    found, expected = (RandAugment()(each, seed=1, epoch=2).inputs.cpu().int() for each in (there, batch))
    assert ((found - expected).abs() > 1).float().mean() < 0.01  # where a turned pixel lies between two others
