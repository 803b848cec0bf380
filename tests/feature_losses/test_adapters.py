import copy

import pytest
import torch
from pairs import CNN, SHAPE, make_pair
from torch import nn

from kdexp.contracts import FeatureLayers
from kdexp.feature_losses.adapters import BatchNorm, Connector, matched_preacts
from kdexp.models.cnn import cnn
from kdexp.models.vgg_cifar import vgg8


def test_batch_norm_is_pytorchs_wherever_that_one_works():
    torch.manual_seed(0)
    own, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for shape in ((4, 3, 2, 2), (4, 3, 1, 1), (1, 3, 2, 1)):
        maps = torch.randn(shape)
        torch.testing.assert_close(own(maps), theirs(maps))
    assert all(torch.equal(a, b) for a, b in zip(own.buffers(), theirs.buffers(), strict=True))
    own.eval(), theirs.eval()
    torch.testing.assert_close(own(maps), theirs(maps))


def test_one_value_a_channel_is_normalised_as_in_eval_and_not_learned_from():
    torch.manual_seed(0)
    norm = BatchNorm(3)
    norm(5 + 2 * torch.randn(100, 3, 1, 1))
    before = copy.deepcopy(norm.state_dict())
    one = torch.randn(1, 3, 1, 1, requires_grad=True)
    found = norm(one)
    found.sum().backward()
    assert torch.equal(found, copy.deepcopy(norm).eval()(one))
    assert one.grad.isfinite().all()
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize(
    ("source", "goal", "expected"),
    [
        ((2, 4, 8, 8), (2, 6, 4, 4), (3, 6, 4, 4)),
        ((2, 4, 2, 2), (2, 6, 4, 4), (3, 6, 4, 4)),
        ((2, 7), (2, 9), (3, 9, 1, 1)),
        ((2, 5, 4), (2, 6, 8), (3, 8, 6, 1)),
    ],
)
def test_connector_gives_the_shape_of_the_goal(source, goal, expected):
    assert Connector(source, goal)(torch.randn(3, *source[1:])).shape == expected


def test_connector_is_a_product_over_channels_in_units_of_each_channels_spread():
    torch.manual_seed(0)
    connector, maps = Connector((2, 4, 3, 3), (2, 6, 3, 3)), torch.randn(5, 4, 3, 3)
    weight = connector.layers[0].weight[:, :, 0, 0]
    mixed = torch.einsum("oc,nchw->ohwn", weight, maps).flatten(1)
    expected = (mixed - mixed.mean(1, keepdim=True)) / mixed.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(connector(maps).permute(1, 2, 3, 0).flatten(1), expected, rtol=1e-3, atol=1e-4)


def test_preactivations_are_matched_from_the_output_on(pair):
    assert matched_preacts("ab", pair) == [(f"stage{i}.-2", f"stage{i}.-2") for i in (1, 2, 3)]
    vgg = FeatureLayers([f"stage{i}" for i in range(1, 6)], "pool", "classifier", [f"stage{i}.-2" for i in range(1, 6)])
    deeper = make_pair(cnn(5, SHAPE, width=4), vgg8(5, SHAPE), CNN, vgg)
    assert matched_preacts("ab", deeper) == [(f"stage{i}.-2", f"stage{i + 2}.-2") for i in (1, 2, 3)]


@pytest.mark.parametrize(("student", "teacher", "who"), [(False, True, "student"), (True, False, "teacher")])
def test_a_side_without_preactivations_is_named(student, teacher, who):
    bare = FeatureLayers(CNN.stages, CNN.penultimate, CNN.classifier)
    layers = [CNN if has else bare for has in (student, teacher)]
    networks = cnn(5, SHAPE, width=4), cnn(5, SHAPE, width=4)
    with pytest.raises(ValueError, match=rf"^feature_loss=ofd needs feature_layers.preact of the {who}, got none$"):
        matched_preacts("ofd", make_pair(*networks, *layers))
