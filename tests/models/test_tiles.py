import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdexp.models.mobilenet_unet import mobilenet_unet
from kdexp.models.tiles import Tiles, evaluate_in_tiles, tiled
from kdexp.models.unet import unet


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def network(family, depth):
    """With statistics of batch norm that are not those of the start."""
    torch.manual_seed(depth)
    made = family(2, (1, 32, 32), width=2, depth=depth)
    made(images(4, 1, 64, 64))
    return made.eval().double()


@pytest.mark.parametrize("size", [(150, 83), (40, 131), (64, 64), (20, 30)])
@pytest.mark.parametrize(("family", "depth", "overlap"), [(unet, 1, 18), (mobilenet_unet, 1, 18), (unet, 2, 48)])
def test_the_logits_are_those_of_the_whole_image(family, depth, overlap, size):
    whole, inputs = network(family, depth), images(2, 1, *size).double()
    with torch.no_grad():
        found = tiled(whole, inputs, tile=64, overlap=overlap)
        torch.testing.assert_close(found, whole(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("radius", [1, 3])
def test_an_overlap_of_twice_the_radius_is_needed_and_enough(radius):
    convolution = nn.Conv2d(1, 1, 2 * radius + 1, padding=radius).double()
    nn.init.ones_(convolution.weight)
    inputs = images(1, 1, 37, 50).double()
    with torch.no_grad():
        expected = convolution(inputs)
        torch.testing.assert_close(tiled(convolution, inputs, 16, 2 * radius), expected)
        less = tiled(convolution, inputs, 16, 2 * radius - 2)
    assert less.shape == expected.shape
    assert (less - expected).abs().max() > 0.1


@pytest.mark.parametrize(("tile", "overlap"), [(7, 0), (7, 3), (7, 6), (1, 0), (100, 10)])
def test_every_pixel_is_given_once_and_at_its_place(tile, overlap):
    inputs = torch.arange(23 * 31.0).view(1, 1, 23, 31)
    assert torch.equal(tiled(lambda seen: seen, inputs, tile, overlap), inputs)


def test_no_tile_is_larger_and_a_small_image_is_one():
    sizes = []

    def look(seen):
        sizes.append(tuple(seen.shape[2:]))
        return seen

    tiled(look, torch.zeros(1, 1, 23, 8), 10, 4)
    assert sizes == [(10, 8), (10, 8), (10, 8), (5, 8)]
    sizes.clear()
    tiled(look, torch.zeros(1, 1, 10, 3), 10, 4)
    assert sizes == [(10, 3)]


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (0, 0, "tile must be at least 1 pixel, got 0"),
        (8, 8, r"overlap must be in \[0, tile\), tile being 8, got 8"),
        (8, -1, r"overlap must be in \[0, tile\), tile being 8, got -1"),
    ],
)
def test_what_makes_no_tiles_is_refused_in_one_line(tile, overlap, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        tiled(lambda seen: seen, torch.zeros(1, 1, 20, 20), tile, overlap)


def test_a_network_whose_logits_have_another_size_is_refused():
    with pytest.raises(ValueError, match=r"^logits must have the size of their tile, \(8, 8\), got \(1, 1, 4, 4\)$"):
        tiled(lambda seen: F.avg_pool2d(seen, 2), torch.zeros(1, 1, 20, 20), 8, 2)


@pytest.mark.parametrize("family", [unet, mobilenet_unet])
def test_a_unet_sees_as_far_as_is_said(family):
    for depth, reach in ((1, 9), (2, 23), (3, 51)):
        whole = family(1, (1, 8, 8), width=1, depth=depth).eval().double()
        whole.shrink = nn.AvgPool2d(2)  # and all weights are 1: every pixel counts
        for layer in whole.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.ones_(layer.weight)
        found = 0
        for place in range(128, 128 + 2**depth):
            inputs = torch.ones(1, 1, 256, 2**depth, dtype=torch.double, requires_grad=True)
            (gradient,) = torch.autograd.grad(whole(inputs)[0, 0, place, 0], inputs)
            seen = gradient.abs().sum((0, 1, 3)).nonzero()[:, 0]
            found = max(found, place - int(seen.min()), int(seen.max()) - place)
        assert found == reach


def test_a_network_sees_tiles_in_eval_mode_alone_and_so_does_its_copy():
    sizes = []
    made = network(unet, 1)
    made.encoder[0].register_forward_pre_hook(lambda by, seen: sizes.append(tuple(seen[0].shape[2:])))
    whole = made(images(1, 1, 40, 30).double())
    evaluate_in_tiles(made, Tiles(24, 18))
    for one in (made, copy.deepcopy(made)):
        sizes.clear()
        torch.testing.assert_close(one(images(1, 1, 40, 30).double()), whole, rtol=0, atol=1e-12)
        assert len(sizes) > 1
        assert max(map(max, sizes)) == 24
        sizes.clear()
        one.train()(images(2, 1, 40, 30).double())
        assert sizes == [(40, 30)]
        one.eval()


def test_a_copy_of_a_network_in_tiles_has_weights_of_its_own():
    made = network(unet, 1)
    evaluate_in_tiles(made, Tiles(24, 18))
    other = copy.deepcopy(made)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    inputs = images(1, 1, 40, 30).double()
    assert not torch.equal(made(inputs), other(inputs))
    assert made.state_dict().keys() == network(unet, 1).state_dict().keys()
