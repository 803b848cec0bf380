from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from kdexp.config.compose import compose, plain
from kdexp.contracts import FeatureLayers
from kdexp.experiment.networks import build_network
from kdexp.features import Reader, discover, find, input_of_classifier, side
from kdexp.models.torchvision_segmentation import torchvision_segmentation

CONF = Path(__file__).parents[1] / "conf"
STUDENTS = sorted(
    path.stem
    for path in (CONF / "student").glob("*.yaml")
    if path.stem not in ("base", "module") and "vae" not in path.stem
)
DENSE = ("unet", "mobilenet_unet", "torchvision_segmentation", "smp")
OF_TEXTS = ("hf_text", "text_transformer", "textcnn", "textrnn")  # tests/models/test_text_models.py


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))


def test_a_reader_gives_what_the_modules_give_and_get():
    network, inputs = small(), torch.randn(5, 4)
    logits, features, _ = Reader(network, ["0.0", "0.-1", "1:input"])(inputs)
    before = network[0][0](inputs)
    assert torch.equal(logits, network(inputs))
    assert torch.equal(features["0.0"], before)
    assert torch.equal(features["0.-1"], before.relu())
    assert torch.equal(features["1:input"], before.relu())
    assert features["0.0"].requires_grad


def test_a_reader_of_nothing_hooks_nothing_and_a_closed_one_lets_go():
    network = small()
    Reader(network)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    reader = Reader(network, ["0", "1:input"])
    assert any(module._forward_hooks for module in network.modules())
    reader.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_features_of_one_batch_do_not_stay_for_the_next():
    network = small()
    reader = Reader(network, ["0"])
    first, second = reader(torch.randn(5, 4)), reader(torch.randn(2, 4))
    assert len(first.features["0"]) == 5
    assert len(second.features["0"]) == 2


def test_a_recurrent_layer_gives_its_states():
    network = nn.Sequential(nn.GRU(4, 3, batch_first=True))
    features = Reader(network, ["0"])(torch.randn(2, 6, 4)).features
    assert features["0"].shape == (2, 6, 3)


@pytest.mark.parametrize("path", ["2", "0.-3", "0.0.weight", "nothing"])
def test_a_path_that_is_not_there_is_refused(path):
    with pytest.raises(ValueError, match=f"^a layer must be a module of the network, got '{path}': .* is not among"):
        find(small(), path)


def test_looking_at_a_network_leaves_it_as_it_was():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = side(network, None, torch.zeros(2, 1, 6, 6))
    assert network.training
    assert not network[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert found.layers == FeatureLayers(stages=["1"], preact=["1"], penultimate="4:input", classifier="4")
    assert found.shapes == {"1": (2, 2, 4, 4), "4:input": (2, 2), "": (2, 3)}


@pytest.mark.parametrize(
    "name", [name for name in STUDENTS if name not in ("timm", "torchvision", "huggingface", *DENSE, *OF_TEXTS)]
)
def test_the_layers_of_every_family_are_what_their_names_say(name):
    dataset = compose([f"student={name}", "dataset=synthetic", "dataset.input_shape=[3,32,32]"], output_dir="unused")
    built = build_network(dataset.student, "student", dataset.dataset, dataset.task)
    layers = FeatureLayers(**plain(dataset.student)["feature_layers"])
    found = side(built, layers, torch.zeros(2, 3, 32, 32))
    classifier = find(built, layers.classifier)
    assert isinstance(classifier, nn.Linear)
    assert found.shapes[layers.penultimate] == (2, classifier.in_features)
    assert len(layers.preact) in (0, len(layers.stages))
    inputs = torch.randn(2, 3, 32, 32)
    outputs = Reader(built.eval(), [*layers.stages, *layers.preact, layers.penultimate])(inputs)
    torch.testing.assert_close(classifier(outputs.features[layers.penultimate]), outputs.logits)
    if len(found.shapes[layers.stages[-1]]) == 4:  # the head reads the mean of the last stage
        torch.testing.assert_close(
            outputs.features[layers.stages[-1]].mean((2, 3)), outputs.features[layers.penultimate]
        )
    for stage, preact in zip(layers.stages, layers.preact, strict=False):
        before, after = outputs.features[preact], outputs.features[stage]
        assert before.shape == after.shape
        assert (before < 0).any()
        if not torch.equal(before, after) and not name.startswith("wrn"):
            torch.testing.assert_close(before.relu(), after)


@pytest.mark.parametrize(("name", "task", "shapes"), [
    ("unet", "classification.Classification", r"\(N, 3\) logits for dataset=shapes, got \(2, 3, 64, 64\)"),
    ("cnn_small", "segmentation.Segmentation", r"\(N, 3, 64, 64\) logits for dataset=shapes, got \(2, 3\)"),
])  # fmt: skip
def test_a_network_of_another_task_is_refused_in_one_line(name, task, shapes):
    config = compose([f"student={name}", "dataset=shapes"], output_dir="unused")
    with pytest.raises(ValueError, match=f"^student must give {shapes}; for task=.* there are .*$"):
        build_network(config.student, "student", config.dataset, {"_target_": f"kdexp.tasks.{task}"})


@pytest.mark.parametrize("name", ["unet", "mobilenet_unet", "torchvision_segmentation"])
def test_a_dense_network_is_built_for_masks_and_its_stages_are_maps(name):
    config = compose([f"student={name}", "dataset=shapes"], output_dir="unused")
    built = build_network(config.student, "student", config.dataset, config.task)
    assert built.training
    found = side(built, None, torch.zeros(2, 3, 64, 64))
    sizes = [found.shapes[stage][2] for stage in found.layers.stages]
    assert len(sizes) > 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("name", "stages", "last"), [
    ("deeplabv3_resnet50", ["backbone.layer1", "backbone.layer4"], 2048),
    ("lraspp_mobilenet_v3_large", ["backbone.1", "backbone.3", "backbone.6", "backbone.16"], 960),
])  # fmt: skip
def test_of_a_dense_network_without_a_linear_layer_the_stages_of_its_encoder_are_found(name, stages, last):
    network = torchvision_segmentation(3, (3, 64, 64), name)
    layers = discover(network, torch.zeros(2, 3, 64, 64))
    assert list(layers.stages) == stages
    assert (layers.penultimate, layers.classifier) == (None, None)
    assert side(network, layers, torch.zeros(2, 3, 64, 64)).shapes[stages[-1]][1] == last


FOUR = ["layer1", "layer2", "layer3", "layer4"]
MOBILE = ["features.1", "features.3", "features.8"]
VGG = [f"features.{place}" for place in (1, 4, 9, 14, 19)]


def timm_model(name, **options):
    return lambda: timm.create_model(name, num_classes=5, **options)


def torchvision_model(name, **options):
    return lambda: models.get_model(name, weights=None, num_classes=5, **options)


# name -> (network, stages, preact where it is another, size of the penultimate features)
FOUND = {
    "resnet18": (torchvision_model("resnet18"), FOUR, [f"{stage}.1.relu:input" for stage in FOUR], 512),
    "resnet50": (
        torchvision_model("resnet50"),
        FOUR,
        ["layer1.2.relu:input", "layer2.3.relu:input", "layer3.5.relu:input", "layer4.2.relu:input"],
        2048,
    ),
    "mobilenet_v3_small": (
        torchvision_model("mobilenet_v3_small"),
        [*MOBILE, "features"],
        [*MOBILE, "features.12.2:input"],
        1024,
    ),
    "vgg11": (torchvision_model("vgg11"), VGG, [f"{stage}:input" for stage in VGG], 4096),
    "swin_t": (
        torchvision_model("swin_t"),
        ["features.1:channels_last", "features.3:channels_last", "features.5:channels_last", "permute"],
        None,
        768,
    ),
    "convnext_tiny": (
        torchvision_model("convnext_tiny"),
        ["features.1", "features.3", "features.5", "features"],
        None,
        768,
    ),
    "vit_b_16": (
        torchvision_model("vit_b_16", image_size=64),
        [f"encoder.layers.encoder_layer_{place}" for place in (9, 10, 11)],
        None,
        768,
    ),
    "timm resnet10t": (
        timm_model("resnet10t", zero_init_last=False),
        FOUR,
        [f"{stage}.0.act2:input" for stage in FOUR],
        512,
    ),
    "timm vit_tiny": (
        timm_model("vit_tiny_patch16_224", img_size=64),
        [f"blocks.{place}" for place in range(12)],
        None,
        192,
    ),
    "timm swin_tiny": (
        timm_model("swin_tiny_patch4_window7_224", img_size=64),
        [f"layers.{place}:channels_last" for place in range(4)],
        None,
        768,
    ),
}


@pytest.mark.parametrize(("built", "stages", "preact", "penultimate"), FOUND.values(), ids=FOUND)
def test_the_stages_of_libraries_networks_are_found(built, stages, preact, penultimate):
    torch.manual_seed(0)
    model, inputs = built(), torch.randn(2, 3, 64, 64)
    layers = discover(model, inputs)
    assert list(layers.stages) == stages
    assert list(layers.preact) == (preact or stages)
    found = side(model, layers, inputs)
    assert found.shapes[layers.penultimate] == (2, penultimate)
    sizes = [found.shapes[stage][2:] for stage in layers.stages if len(found.shapes[stage]) == 4]
    assert sizes == sorted(sizes, reverse=True)
    assert all(height == width for height, width in sizes)
    outputs = Reader(model.eval(), [*layers.stages, *layers.preact])(inputs)
    for stage, before in zip(layers.stages, layers.preact, strict=True):
        if before != stage:  # an activation that works in place has not touched what was read
            activation = find(model, before.removesuffix(":input"))
            assert not torch.equal(outputs.features[before], outputs.features[stage])
            torch.testing.assert_close(activation(outputs.features[before].clone()), outputs.features[stage])


def test_maps_with_channels_last_are_read_with_channels_first():
    network = nn.Sequential(nn.Conv2d(1, 6, 3), Permute(0, 2, 3, 1), nn.LayerNorm(6))
    inputs = torch.randn(2, 1, 8, 8)
    features = Reader(network, ["2", "2:channels_last"])(inputs).features
    assert features["2"].shape == (2, 6, 6, 6)
    assert torch.equal(features["2:channels_last"], features["2"].permute(0, 3, 1, 2))


class Permute(nn.Module):
    def __init__(self, *dims):
        super().__init__()
        self.dims = dims

    def forward(self, inputs):
        return inputs.permute(self.dims)


def test_what_the_classifier_gets_is_found_without_stages():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert input_of_classifier(network, torch.zeros(2, 1, 2, 2)) == "1:input"
    assert input_of_classifier(nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten()), torch.zeros(2, 1, 2, 2)) is None


def test_a_network_without_a_linear_layer_must_name_its_layers():
    with pytest.raises(ValueError, match=r"^the layers of Sequential must be given: it has no linear layer, got auto$"):
        discover(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), torch.zeros(2, 1, 3, 3))
