"""Every operator against another library's, or against the published code rewritten for one image."""

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from operators import images
from PIL import Image
from scipy import ndimage, stats
from skimage import color
from skimage.transform import AffineTransform, warp

from kdexp.data.stateless_rng import RngStream, normal, uniform
from kdexp.robustness import blur, colour, digital, geometry, noise, tabular, weather

INDEX = torch.tensor([5, 3, 100, 7])
SEED = 11


def four(channels=3, size=32):
    return images(4, channels, size)


def each(x):
    """Every channel of every image, as float64 arrays."""
    return [channel.double().numpy() for channel in x.flatten(0, 1)]


def assert_each(found, expected, atol=1e-5):
    for mine, theirs in zip(each(found), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)


# Noise


def test_normal_numbers_are_normal():
    draws = normal(0, 0, torch.arange(400), 101, 1000).double()
    assert draws.shape == (400, 101)
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 0.01
    for row, column in ((0, 1), (0, 51), (1, 52)):  # both numbers of one word, and of two
        assert abs(np.corrcoef(draws[:, row], draws[:, column])[0, 1]) < 0.15


def test_gaussian_and_speckle_noise_have_their_sizes():
    grey = torch.full((50, 1, 32, 32), 0.5)
    index = torch.arange(50)
    found = noise.gaussian_noise(grey, index, seed=0, sigma=0.08) - 0.5
    assert stats.kstest(found.flatten().double().numpy(), "norm", (0, 0.08)).pvalue > 0.01
    found = noise.speckle_noise(grey, index, seed=0, sigma=0.2) - 0.5
    assert stats.kstest(found.flatten().double().numpy(), "norm", (0, 0.1)).pvalue > 0.01
    found = noise.uniform_noise(grey, index, seed=0, width=0.3) - 0.2
    assert stats.kstest(found.flatten().double().numpy(), "uniform", (0, 0.6)).pvalue > 0.01


def test_shot_noise_is_the_quantile_of_poissons_distribution():
    x = four()
    for photons in (500, 60, 3):
        found = noise.shot_noise(x, INDEX, seed=SEED, photons=photons)
        u = uniform(SEED, 0, INDEX, 3 * 32 * 32, RngStream.SHOT_NOISE).view_as(x).double()
        expected = stats.poisson.ppf(u.numpy(), (x * 255).round().double().numpy() / 255 * photons).clip(min=0)
        # u is a multiple of 2^-24, so that it can lie on a step of the distribution; as good as never.
        np.testing.assert_allclose(found, np.clip(expected / photons, 0, 1), atol=1e-6)


def test_impulse_noise_is_salt_and_pepper():
    x = torch.full((100, 3, 32, 32), 0.5)
    found = noise.impulse_noise(x, torch.arange(100), seed=0, amount=0.06)
    for value in (0.0, 1.0):
        assert stats.binomtest(int((found == value).sum()), found.numel(), 0.03).pvalue > 0.01
    assert set(found.unique().tolist()) == {0.0, 0.5, 1.0}


# Blur


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 6.0])
def test_gaussian_blur_is_scipys(sigma):
    x = four()
    found = blur.gaussian_blur(x, INDEX, seed=0, sigma=sigma)
    assert_each(found, [ndimage.gaussian_filter(c, sigma, mode="nearest", truncate=4) for c in each(x)])


@pytest.mark.parametrize(("radius", "softness"), [(0.3, 0.4), (1, 0.2), (1.5, 0.1), (8, 0.5), (10, 0.5)])
def test_defocus_is_the_average_over_a_softened_disk(radius, softness):
    axis = np.arange(-16, 17)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    taps = np.exp(-0.5 * (np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)) ** 2 / softness**2)
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(taps, taps) / taps.sum() ** 2, mode="constant")
    x = four(1)
    found = blur.defocus_blur(x, INDEX, seed=0, radius=radius, softness=softness)
    assert_each(found, [ndimage.convolve(c, kernel, mode="nearest") for c in each(x)])


def test_motion_blur_is_the_published_loop_over_shifted_images():
    x = four()
    found = blur.motion_blur(x, INDEX, seed=SEED, radius=6, sigma=2.0)
    angles = uniform(SEED, 0, INDEX, 1, RngStream.MOTION_BLUR).squeeze(1).double().numpy() * 90 - 45
    expected = []
    for sample, angle in zip(x.double().numpy(), angles, strict=True):
        width = 13
        weights = np.exp(-(np.arange(width) ** 2) / (2 * 2.0**2))
        point = width * np.sin(np.deg2rad(angle)), width * np.cos(np.deg2rad(angle))
        padded = np.pad(sample, ((0, 0), (width, width), (width, width)), mode="edge")
        total = np.zeros_like(sample)
        for i, weight in enumerate(weights / weights.sum()):
            dy = -math.ceil(i * point[0] / math.hypot(*point) - 0.5)
            dx = -math.ceil(i * point[1] / math.hypot(*point) - 0.5)
            total += weight * padded[:, width - dy : width - dy + 32, width - dx : width - dx + 32]
        expected += list(total)
    assert_each(found, expected)


def test_zoom_blur_is_the_mean_of_enlargements_about_the_centre():
    x = four(1, 16)
    found = blur.zoom_blur(x, INDEX, seed=0, count=7, step=0.05)
    expected = []
    for c in each(x):
        zoomed = [
            ndimage.affine_transform(c, [1 / z, 1 / z], offset=7.5 * (1 - 1 / z), order=1, mode="nearest")
            for z in 1 + 0.05 * np.arange(7)
        ]
        expected.append((c + sum(zoomed)) / 8)
    assert_each(found, expected)


def test_glass_exchanges_pixels_that_are_near_each_other():
    x = torch.arange(20.0 * 24).view(1, 1, 20, 24).repeat(3, 2, 1, 1)
    index = torch.arange(3)
    for delta, iterations in ((1, 1), (2, 1), (3, 2)):
        # A sigma of 0.01 blurs nothing.
        found = blur.glass_blur(x, index, seed=0, sigma=0.01, max_delta=delta, iterations=iterations).long()
        assert (found.flatten(2).sort().values == torch.arange(480)).all(), "every pixel is still there, once"
        assert torch.equal(found[:, 0], found[:, 1]), "the channels of a pixel stay together"
        assert not torch.equal(found[0], found[1])
        down, right = found // 24 - torch.arange(20).view(-1, 1), found % 24 - torch.arange(24)
        moved = (down != 0) | (right != 0)
        assert 0.4 < moved.float().mean() < 0.95
        # In its own turn a pixel goes up to delta; before and after, in those of others, it may be taken further.
        near = (down.abs() <= 2 * delta * iterations) & (right.abs() <= 2 * delta * iterations)
        assert near.float().mean() > 0.9


# Colour


def in_hsv(x, change):
    changed = []
    for sample in x.double().numpy():
        hsv = color.rgb2hsv(sample.transpose(1, 2, 0))
        changed += list(color.hsv2rgb(change(hsv)).transpose(2, 0, 1))
    return changed


def test_brightness_is_added_to_the_value_of_hsv():
    def change(hsv):
        hsv[..., 2] = np.clip(hsv[..., 2] + 0.2, 0, 1)
        return hsv

    x = four()
    assert_each(colour.brightness(x, INDEX, seed=0, added=0.2), in_hsv(x, change))


@pytest.mark.parametrize(("factor", "added"), [(0.1, 0.0), (1.5, 0.0), (2.5, 0.2)])
def test_saturation_is_that_of_hsv(factor, added):
    def change(hsv):
        hsv[..., 1] = np.clip(hsv[..., 1] * factor + added, 0, 1)
        return hsv

    x = four()
    x[0] = x[0, :1]  # grey
    assert_each(colour.saturate(x, INDEX, seed=0, factor=factor, added=added), in_hsv(x, change))


def test_contrast_is_the_distance_from_the_mean():
    x = four()
    expected = [np.clip((c - c.mean()) * 0.3 + c.mean(), 0, 1) for c in each(x)]
    assert_each(colour.contrast(x, INDEX, seed=0, factor=0.3), expected)


# Weather


def plasma(size, decay, draw):
    """The published function, with the random numbers taken from draw."""
    grid = np.zeros((size, size))
    step, wibble = size, 100

    def wibbled(array):
        return array / 4 + wibble * (wibble * (2 * draw(array.size).reshape(array.shape) - 1))

    while step >= 2:
        half = step // 2
        corners = grid[0:size:step, 0:size:step]
        squares = corners + np.roll(corners, -1, 0)
        squares += np.roll(squares, -1, 1)
        grid[half:size:step, half:size:step] = wibbled(squares)
        dr = grid[half:size:step, half:size:step]
        ul = grid[0:size:step, 0:size:step]
        grid[0:size:step, half:size:step] = wibbled(dr + np.roll(dr, 1, 0) + ul + np.roll(ul, -1, 1))
        grid[half:size:step, 0:size:step] = wibbled(dr + np.roll(dr, 1, 1) + ul + np.roll(ul, -1, 0))
        step, wibble = half, wibble / decay
    grid -= grid.min()
    return grid / grid.max()


def test_fog_is_the_published_fractal():
    x = four(3, 20)
    found = weather.fog(x, INDEX, seed=SEED, amount=0.75, decay=2.5)
    expected = []
    for sample, u in zip(x.double().numpy(), uniform(SEED, 0, INDEX, 32 * 32, RngStream.FOG), strict=True):
        numbers = iter(u.double().numpy())
        cloud = plasma(32, 2.5, lambda n, numbers=numbers: np.array([next(numbers) for _ in range(n)]))
        brightest = sample.max()
        foggy = (sample + 0.75 * cloud[:20, :20]) * brightest / (brightest + 0.75)
        expected += list(np.clip(foggy, 0, 1))
    assert_each(found, expected, atol=1e-4)


@pytest.mark.parametrize("mud", [False, True])
def test_spatter_lies_where_smoothed_noise_is_high(mud):
    x = four()
    settings = {"loc": 0.62, "scale": 0.3, "sigma": 0.7, "threshold": 0.7, "mix": 0.5}
    found = weather.spatter(x, INDEX, seed=SEED, mud=mud, **settings)
    expected = []
    for sample, z in zip(x.double().numpy(), normal(SEED, 0, INDEX, 1024, RngStream.SPATTER).double(), strict=True):
        liquid = ndimage.gaussian_filter(0.62 + 0.3 * z.numpy().reshape(32, 32), 0.7, mode="nearest")
        liquid[liquid < 0.7] = 0
        assert 0.1 < (liquid > 0).mean() < 0.6
        if mud:
            opacity = ndimage.gaussian_filter((liquid > 0.7).astype(float), 0.5, mode="nearest")
            opacity[opacity < 0.8] = 0
            covered = sample * (1 - opacity)
            rgb = np.array([63, 42, 20]) / 255
        else:
            opacity, covered, rgb = 0.5 * liquid / liquid.max(), sample, np.array([175, 238, 238]) / 255
        expected += list(np.clip(covered + rgb[:, None, None] * opacity, 0, 1))
    assert_each(found, expected)


# Digital


@pytest.mark.parametrize(("size", "scale"), [(32, 0.95), (32, 0.65), (28, 0.85), (9, 0.3)])
def test_pixelation_is_pillows(size, scale):
    x = four(1, size)
    small = int(size * scale)
    expected = [
        np.array(Image.fromarray(c.astype("float32")).resize((small, small), Image.BOX).resize((size, size), Image.BOX))
        for c in each(x)
    ]
    assert_each(digital.pixelate(x, INDEX, seed=0, scale=scale), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels):
    x = four(channels)
    found = digital.jpeg_compression(x, INDEX, seed=0, quality=40)
    for mine, sample in zip(found, x, strict=True):
        file = BytesIO()
        pixels = (sample * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=40)
        theirs = np.array(Image.open(file)).reshape(32, 32, channels).transpose(2, 0, 1) / 255
        assert np.abs(mine.numpy() - theirs).mean() < 1 / 255
        assert np.abs(sample.numpy() - theirs).mean() > 2 / 255


# Geometry


def signs():
    return np.where(uniform(SEED, 0, INDEX, 2, RngStream.AFFINE).numpy() < 0.5, -1, 1)


def warped(x, maps):
    """scikit-image's warp, with the maps (3 x 3, of x and y) made to keep the centre."""
    h, w = x.shape[2:]
    expected = []
    for sample, matrix in zip(x.double().numpy(), maps, strict=True):
        centre = np.array([[1, 0, (w - 1) / 2], [0, 1, (h - 1) / 2], [0, 0, 1]])
        full = centre @ matrix @ np.linalg.inv(centre)
        expected += [warp(c, AffineTransform(full), order=1, mode="constant", cval=0) for c in sample]
    return expected


def test_turned_slanted_shrunk_and_moved_images_are_scikit_images():
    x = images(4, 2, 32)[:, :, :, 2:30]  # 32 x 28
    sign = signs()
    cos, sin = np.cos(0.4), np.sin(0.4)
    maps = {
        "rotate": [np.array([[cos, -s * sin, 0], [s * sin, cos, 0], [0, 0, 1]]) for s in sign[:, 0]],
        # AffineTransform(shear=...) of the releases that made MNIST-C
        "shear": [np.array([[1, -s * sin, 0], [0, cos, 0], [0, 0, 1]]) for s in sign[:, 0]],
        "scale": [np.diag([1 / 0.7, 1 / 0.7, 1])] * 4,
        "translate": [np.array([[1, 0, s[0] * 0.1 * 28], [0, 1, s[1] * 0.1 * 32], [0, 0, 1]]) for s in sign],
    }
    settings = {
        "rotate": {"angle": 0.4},
        "shear": {"angle": 0.4},
        "scale": {"factor": 0.7},
        "translate": {"share": 0.1},
    }
    for name, setting in settings.items():
        found = getattr(geometry, name)(x, INDEX, seed=SEED, **setting)
        expected = warped(x, maps[name])
        # At the very border of the image the libraries differ in how they fade to black.
        for mine, theirs in zip(each(found), expected, strict=True):
            differs = np.abs(mine - theirs) > 1e-4
            assert differs.mean() < 0.06, name
            assert not differs[8:-8, 8:-8].any(), name
    assert set(sign.flatten()) == {-1, 1}


@pytest.mark.parametrize(("alpha", "sigma", "affine"), [(0.0, 0.0, 0.08), (0.1, 0.04, 0.0), (0.1, 0.03, 0.03)])
def test_elastic_is_an_affine_map_and_a_smooth_displacement(alpha, sigma, affine):
    x = four(1)
    found = geometry.elastic_transform(x, INDEX, seed=SEED, alpha=alpha, sigma=sigma, affine=affine)
    for mine, sample, u in zip(found, x.double(), uniform(SEED, 0, INDEX, 6 + 2048, RngStream.ELASTIC), strict=True):
        u = 2 * u.double().numpy() - 1
        before = np.array([[26, 26], [26, 6], [6, 6]], dtype=float)
        after = before + 32 * affine * u[:6].reshape(3, 2)
        matrix = np.linalg.solve(np.hstack([after, np.ones((3, 1))]), before)
        field = u[6:].reshape(2, 32, 32)
        if sigma:
            field = [ndimage.gaussian_filter(f, 32 * sigma, mode="nearest", truncate=3) for f in field]
        y, x_ = np.mgrid[:32, :32]
        places = np.stack([x_ + 32 * alpha * field[0], y + 32 * alpha * field[1], np.ones((32, 32))], 2) @ matrix
        theirs = ndimage.map_coordinates(sample[0].numpy(), [places[..., 1], places[..., 0]], order=1, mode="reflect")
        np.testing.assert_allclose(mine[0].numpy()[3:-3, 3:-3], theirs[3:-3, 3:-3], atol=1e-3)
        assert np.abs(theirs - sample[0].numpy()).mean() > 0.01


# Tables


def test_what_happens_to_tables():
    x = torch.linspace(-2, 2, 6000).view(200, 30)
    index = torch.arange(200)
    noisy = tabular.feature_noise(x, index, seed=0, sigma=0.4) - x
    assert stats.kstest(noisy.flatten().double().numpy(), "norm", (0, 0.4)).pvalue > 0.01
    missing = tabular.missing_values(x, index, seed=0, share=0.2)
    assert stats.binomtest(int((missing == 0).sum()), x.numel(), 0.2).pvalue > 0.01
    assert torch.equal(missing[missing != 0], x[missing != 0])
    moved = tabular.feature_shift(x, index, seed=0, distance=0.7) - x
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    assert set(moved[0].mul(10).round().tolist()) == {-7, 7}
