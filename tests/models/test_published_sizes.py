"""The CIFAR-100 networks of the distillation benchmark have its sizes, layer by layer."""

import itertools
from importlib import import_module

import pytest
import torch

from kdexp.models.complexity import macs, parameters

CIFAR = (3, 32, 32)

# family -> (name, millions of parameters) for 100 classes: Tian et al. 2020 (CRD) and Chen et al. 2022 (SimKD), tables.
PUBLISHED = {
    "resnet_cifar": {"resnet20": 0.28, "resnet56": 0.86, "resnet110": 1.74, "resnet8x4": 1.23, "resnet32x4": 7.43},
    "wrn": {"wrn_16_2": 0.70, "wrn_40_1": 0.57, "wrn_40_2": 2.26},
    "vgg_cifar": {"vgg8": 3.96, "vgg13": 9.46},
    "mobilenetv2": {"mobilenetv2_half": 0.81},
    "shufflenetv1": {"shufflenetv1": 0.95},
    "shufflenetv2": {"shufflenetv2": 1.36},
}


def make(family, name, input_shape=CIFAR):
    return getattr(import_module(f"kdexp.models.{family}"), name)(100, input_shape)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in PUBLISHED for name in PUBLISHED[family]])
def test_parameters_are_the_published_ones(family, name):
    # Tables round or cut (vgg8's 3.965M stands there as 3.96M).
    assert parameters(make(family, name)) / 1e6 == pytest.approx(PUBLISHED[family][name], abs=0.0051)


def conv_bn(channels, out, kernel=3):
    return channels * out * kernel**2 + 2 * out


@pytest.mark.parametrize(
    ("name", "depth", "widths"),
    [(f"resnet{depth}", depth, (16, 16, 32, 64)) for depth in (8, 14, 20, 32, 44, 56, 110)]
    + [(f"resnet{depth}x4", depth, (32, 64, 128, 256)) for depth in (8, 32)],
)
def test_resnet_parameters_are_the_sum_over_its_layers(name, depth, widths):
    expected = conv_bn(3, widths[0]) + widths[3] * 100 + 100
    for channels, out in itertools.pairwise(widths):
        expected += conv_bn(channels, out) + (conv_bn(channels, out, 1) if channels != out else 0)
        expected += conv_bn(out, out) * (2 * (depth - 2) // 6 - 1)
    assert parameters(make("resnet_cifar", name)) == expected


@pytest.mark.parametrize(("depth", "widen"), [(16, 1), (16, 2), (40, 1), (40, 2)])
def test_wide_resnet_parameters_are_the_sum_over_its_layers(depth, widen):
    widths = [16, 16 * widen, 32 * widen, 64 * widen]
    expected = 27 * 16 + 2 * widths[3] + widths[3] * 100 + 100
    for channels, out in itertools.pairwise(widths):
        expected += channels * out if channels != out else 0  # the shortcut
        expected += 2 * channels + 9 * channels * out + conv_bn(out, out) * (2 * (depth - 4) // 6 - 1)
    assert parameters(make("wrn", f"wrn_{depth}_{widen}")) == expected


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("vgg8", [64, 128, 256, 512, 512]),
        ("vgg11", [64, 128, 256, 256, 512, 512, 512, 512]),
        ("vgg13", [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]),
        ("vgg16", [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]),
        ("vgg19", [64, 64, 128, 128, *[256] * 4, *[512] * 8]),
    ],
)
def test_vgg_parameters_are_the_sum_over_its_layers(name, widths):
    convolutions = sum(conv_bn(a, b) + b for a, b in zip([3, *widths], widths, strict=False))
    assert parameters(make("vgg_cifar", name)) == convolutions + 512 * 100 + 100


def residual_macs(convolutions_a_stage, widths, num_classes=100):
    """He et al.'s three stages on 32 x 32 images: 1024, 256 and 64 pixels."""
    total = 27 * 16 * 1024 + widths[-1] * num_classes
    for channels, out, pixels in zip(widths, widths[1:], (1024, 256, 64), strict=False):
        shortcut = channels * out if channels != out else 0
        total += pixels * (shortcut + 9 * channels * out + 9 * out * out * (convolutions_a_stage - 1))
    return total


@pytest.mark.parametrize(
    ("family", "name", "convolutions_a_stage", "widths", "widely_reported"),
    [
        ("resnet_cifar", "resnet20", 6, (16, 16, 32, 64), 41e6),
        ("resnet_cifar", "resnet56", 18, (16, 16, 32, 64), 126e6),
        ("wrn", "wrn_40_2", 12, (16, 32, 64, 128), 328e6),
    ],
)
def test_macs_are_the_sum_over_the_layers(family, name, convolutions_a_stage, widths, widely_reported):
    counted = macs(make(family, name), CIFAR)
    assert counted == residual_macs(convolutions_a_stage, widths)
    assert counted == pytest.approx(widely_reported, rel=0.005)


@pytest.mark.parametrize(
    ("family", "name", "stages"),
    [
        ("resnet_cifar", "resnet8", [(16, 32), (32, 16), (64, 8)]),
        ("resnet_cifar", "resnet8x4", [(64, 32), (128, 16), (256, 8)]),
        ("wrn", "wrn_16_2", [(32, 32), (64, 16), (128, 8)]),
        ("vgg_cifar", "vgg8", [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]),
        ("mobilenetv2", "mobilenetv2_half", [(12, 16), (16, 8), (48, 4), (160, 2)]),
        ("shufflenetv1", "shufflenetv1", [(240, 16), (480, 8), (960, 4)]),
        ("shufflenetv2", "shufflenetv2", [(116, 16), (232, 8), (464, 4)]),
    ],
)
def test_stages_give_the_benchmarks_feature_maps(family, name, stages):
    model = make(family, name)
    shapes = []
    for i in range(len(stages)):
        model.get_submodule(f"stage{i + 1}").register_forward_hook(lambda _, i, o: shapes.append(tuple(o.shape)))
    model.eval()(torch.zeros(1, *CIFAR))
    assert shapes == [(1, channels, size, size) for channels, size in stages]


def test_vgg_halves_larger_images_once_more():
    model = make("vgg_cifar", "vgg8", (3, 64, 64))
    shapes = []
    model.stage5.register_forward_hook(lambda _, i, o: shapes.append(tuple(o.shape)))
    model.eval()(torch.zeros(1, 3, 64, 64))
    assert shapes == [(1, 512, 4, 4)]


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in PUBLISHED for name in PUBLISHED[family]])
@pytest.mark.parametrize("input_shape", [[30], [16, 8]])
def test_inputs_that_are_not_images_are_refused_in_one_line(family, name, input_shape):
    with pytest.raises(ValueError, match=rf"^{name} takes images: input_shape must be .* got \[{input_shape[0]}.*\]$"):
        make(family, name, input_shape)


def test_vgg_refuses_images_that_its_poolings_would_empty():
    with pytest.raises(ValueError, match="at least 8 x 8 pixels"):
        make("vgg_cifar", "vgg8", (1, 8, 7))
    assert make("vgg_cifar", "vgg8", (1, 8, 8)).eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 100)
