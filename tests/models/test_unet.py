import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdexp.feature_losses.at import AT
from kdexp.feature_losses.cc import CC
from kdexp.feature_losses.fitnet import FitNet
from kdexp.features import Reader, pair_of
from kdexp.models.complexity import parameters
from kdexp.models.mobilenet_unet import mobilenet_unet
from kdexp.models.unet import unet

BOTH = pytest.mark.parametrize("family", [unet, mobilenet_unet])


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_published_network_has_the_published_size():
    """Others count 31,030,593 for gray images and one output, with a bias where here is a batch norm's pair."""
    channels = 2 * (64 + 128 + 256 + 512 + 1024) + 2 * (512 + 256 + 128 + 64)
    assert parameters(unet(1, (1, 8, 8), width=64, depth=4)) == 31_030_593 + channels


@BOTH
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (1, 9)])
def test_logits_have_the_size_of_the_image(family, size):
    network = family(5, (3, 32, 32), width=4, depth=3).eval()
    assert network(images(2, 3, *size)).shape == (2, 5, *size)


@BOTH
def test_an_image_of_another_size_is_padded_with_zeros_and_cut_off(family):
    network = family(2, (1, 13, 18), width=4, depth=2).eval()
    small = images(2, 1, 13, 18)
    torch.testing.assert_close(network(small), network(F.pad(small, (0, 2, 0, 3)))[..., :13, :18])


@BOTH
def test_the_stages_are_those_of_the_image_halved_and_of_width_doubled(family):
    network = family(1, (3, 24, 16), width=4, depth=3).eval()
    features = Reader(network, network.layers.stages)(images(2, 3, 24, 16)).features
    sizes = [(2, 4, 24, 16), (2, 8, 12, 8), (2, 16, 6, 4), (2, 32, 3, 2)]
    assert [tuple(features[stage].shape) for stage in network.layers.stages] == sizes


@BOTH
def test_the_layers_are_before_and_after_the_last_activation_and_what_the_head_reads(family):
    network = family(3, (3, 16, 16), width=4, depth=2).eval()
    layers = network.layers
    read = Reader(network, [*layers.stages, *layers.preact, layers.penultimate])
    logits, features, _ = read(images(2, 3, 16, 16))
    for stage, before in zip(layers.stages, layers.preact, strict=True):
        assert features[before].min() < 0
        assert torch.equal(features[stage], features[before].relu())
    torch.testing.assert_close(network.get_submodule(layers.classifier)(features[layers.penultimate]), logits)


def by_hand(network, inputs):
    """Figure 1 of the paper, for depth 1."""
    left = network.encoder[0](inputs)
    below = network.encoder[1](F.max_pool2d(left, 2))
    return network.head(network.decoder[0](torch.cat((left, network.up[0](below)), 1)))


@BOTH
def test_a_network_of_depth_1_is_its_formula(family):
    network = family(2, (1, 8, 8), width=4, depth=1).eval()
    inputs = images(2, 1, 8, 8)
    assert torch.equal(network(inputs), by_hand(network, inputs))


def test_mobilenets_convolutions_are_depthwise_and_pointwise_but_for_the_first():
    network = mobilenet_unet(1, (3, 16, 16))
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    kinds = ["depthwise" if is_depthwise(c) else f"{c.kernel_size[0]}x{c.kernel_size[1]}" for c in layers]
    assert kinds[0] == "3x3"
    assert kinds[1:-1] == ["depthwise", "1x1"] * (len(kinds) // 2 - 1)
    assert kinds[-1] == "1x1"
    # 27 times smaller than its teacher.
    assert (parameters(network), parameters(unet(1, (3, 16, 16)))) == (18_033, 482_737)


def is_depthwise(layer):
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


@BOTH
def test_batch_norm_and_relu_follow_every_convolution_of_a_stage_that_is_not_depthwise(family):
    network = family(1, (3, 16, 16))
    for stage in (*network.encoder, *network.decoder):
        kinds = [type(layer) for layer in stage if not is_depthwise(layer)]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * (len(kinds) // 3)


@BOTH
def test_weights_begin_with_the_papers_deviation(family):
    torch.manual_seed(0)
    network = family(1, (3, 16, 16), width=32)
    inputs = {nn.Conv2d: lambda w: w[0].numel(), nn.ConvTranspose2d: len}  # of a neuron
    for layer in network.modules():
        if type(layer) in inputs and layer.weight.numel() > 500:
            expected = (2 / inputs[type(layer)](layer.weight)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert layer.bias is None or not layer.bias.any()


@BOTH
def test_every_parameter_has_a_finite_gradient_and_no_hook_sees_what_is_overwritten(family):
    network = family(3, (3, 19, 16), width=4, depth=2)
    seen = []

    def keep(module, _, output):
        seen.append((module, output, output.detach().clone()))

    for module in network.modules():
        module.register_forward_hook(keep)
    F.cross_entropy(network(images(4, 3, 19, 16)), torch.zeros(4, 19, 16, dtype=torch.int64)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert len(seen) > 20
    for module, output, at_that_time in seen:
        assert torch.equal(output, at_that_time), module


@BOTH
def test_a_seed_decides_the_weights_and_weights_the_network(family):
    torch.manual_seed(3)
    first = family(1, (3, 16, 16), width=4)
    torch.manual_seed(3)
    second = family(1, (3, 16, 16), width=4)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    other = family(1, (3, 16, 16), width=4)
    inputs = images(2, 3, 16, 16)
    assert not torch.equal(first.eval()(inputs), other.eval()(inputs))
    other.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(first(inputs), other(inputs))


@pytest.mark.parametrize("make", [AT, FitNet])
def test_feature_losses_compare_stages_of_equal_stride(make):
    torch.manual_seed(0)
    teacher, student = unet(2, (3, 16, 16), width=8, depth=2).eval(), mobilenet_unet(2, (3, 16, 16), width=4, depth=2)
    inputs = images(2, 3, 18, 16)
    pair = pair_of(student, teacher, inputs)
    for own, goal in zip(pair.student.layers.stages, pair.teacher.layers.stages, strict=True):
        assert pair.student.shapes[own][2:] == pair.teacher.shapes[goal][2:]
    loss = make(pair)
    term = loss(Reader(student, loss.student_paths)(inputs), Reader(teacher, loss.teacher_paths)(inputs))
    term.backward()
    assert term > 0
    assert student.encoder[0][0].weight.grad.abs().sum() > 0


def test_a_loss_of_vectors_refuses_the_maps_that_the_head_reads():
    pair = pair_of(unet(2, (3, 16, 16)), unet(2, (3, 16, 16)), images(2, 3, 16, 16))
    with pytest.raises(ValueError, match=r"^feature_loss=cc needs vectors .*, got \(16, 16, 16\) from 'head:input'$"):
        CC(pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width of unet must be at least 1, got 0"),
        ({"depth": 0}, "depth of unet must be at least 1, got 0"),
        ({"input_shape": (30,)}, r"unet takes images: .*, got \[30\]"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        unet(**{"num_classes": 2, "input_shape": (3, 16, 16), **arguments})
