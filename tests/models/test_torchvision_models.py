import copy
import pickle
import urllib.error

import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from kdexp.models.complexity import parameters
from kdexp.models.torchvision_models import torchvision_model

CIFAR = (3, 32, 32)


def feature_map(model, path, input_shape=CIFAR):
    seen = []
    model.get_submodule(path).register_forward_hook(lambda _, i, output: seen.append(tuple(output.shape[1:])))
    model.eval()(torch.zeros(1, *input_shape))
    return seen[0]


def test_the_small_stem_keeps_the_resolution_of_small_images():
    assert feature_map(torchvision_model(10, CIFAR), "layer4") == (512, 1, 1)
    small = torchvision_model(10, CIFAR, stem="small")
    assert feature_map(small, "layer4") == (512, 4, 4)
    assert parameters(small) == 11_173_962  # the ResNet-18 of CIFAR-10 that others publish


@pytest.mark.parametrize(("name", "path"), [("densenet121", "features.denseblock1"), ("googlenet", "inception3a")])
def test_the_small_stem_is_found_by_its_place_not_its_name(name, path):
    keep, small = (feature_map(torchvision_model(10, (3, 64, 64), name, stem=stem), path, (3, 64, 64))[1]
                   for stem in ("keep", "small"))  # fmt: skip
    assert small == 4 * keep


def test_a_stem_without_pooling_is_made_small_too():
    model = torchvision_model(10, CIFAR, "mobilenet_v3_small", stem="small")
    assert feature_map(model, "features.0") == (16, 32, 32)
    assert feature_map(model, "features.1") == (16, 16, 16)


def test_resize_enlarges_the_image_and_keeps_the_names_of_the_weights():
    torch.manual_seed(0)
    resized = torchvision_model(1000, CIFAR, resize=96).eval()
    plain = models.resnet18().eval()
    plain.load_state_dict(resized.state_dict())
    images = torch.rand(2, *CIFAR)
    enlarged = F.interpolate(images, size=(96, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized(images), plain(enlarged), rtol=1e-4, atol=1e-5)


def test_a_resizing_network_can_be_copied_and_sent_to_another_process():
    model = torchvision_model(10, CIFAR, "squeezenet1_1", resize=64).eval()
    images = torch.rand(2, *CIFAR)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), model(images))


def test_any_number_of_channels_is_taken():
    for channels in (1, 4):
        model = torchvision_model(10, (channels, 32, 32), "mobilenet_v3_small")
        assert model.eval()(torch.rand(2, channels, 32, 32)).shape == (2, 10)
    assert feature_map(torchvision_model(10, (1, 32, 32)), "conv1", (1, 32, 32)) == (64, 16, 16)


def test_googlenet_returns_logits_alone_in_training():
    assert torchvision_model(10, (3, 64, 64), "googlenet")(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_options_reach_torchvisions_constructor():
    assert torchvision_model(10, CIFAR, "resnet18", width_per_group=64).layer1[0].conv1.out_channels == 64
    assert torchvision_model(10, CIFAR, "mobilenet_v3_small", dropout=0.37).classifier[2].p == 0.37


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet81"},
            r"name must be a classifier of torchvision \(did you mean .*resnet18.*\), got 'resnet81'",
        ),
        ({"name": "zzzz"}, "name must be a classifier of torchvision, got 'zzzz'"),
        ({"name": "fcn_resnet50"}, "name must be a classifier of torchvision .*, got 'fcn_resnet50'"),
        ({"input_shape": (30,)}, r"resnet18 takes images: .*, got \[30\]"),
        ({"stem": "tiny"}, "stem must be keep or small, got tiny"),
        ({"name": "vgg11", "stem": "small"}, "stem=small needs .* strided convolution, got vgg11"),
        ({"resize": 0}, "resize must be null or at least 1 pixel, got 0"),
        (
            {"name": "squeezenet1_1", "input_shape": (3, 8, 8)},
            r"squeezenet1_1 must take input_shape \[3, 8, 8\] \(resize=SIZE rescales images\), got .+",
        ),
        ({"colour": "red"}, r"options of resnet18 must be known to torchvision, got {'colour': 'red'} \(.*\)"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        torchvision_model(**{"num_classes": 10, "input_shape": CIFAR, **arguments})
    assert "\n" not in str(caught.value)


def published(monkeypatch, tmp_path, name, **options):
    """Puts weights where torchvision keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(5)
    weights = models.get_model(name, **options).state_dict()
    file = models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, tmp_path / "hub" / "checkpoints" / file)
    return weights


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("squeezenet1_1", "classifier.1")])
def test_pretrained_weights_are_kept_but_for_a_head_of_another_size(name, head, monkeypatch, tmp_path):
    weights = published(monkeypatch, tmp_path, name)
    same, other = (torchvision_model(n, CIFAR, name, pretrained=True, resize=64).state_dict() for n in (1000, 10))
    assert all(torch.equal(same[path], weights[path]) for path in weights)
    assert [path for path in weights if not torch.equal(other[path], weights[path])] == [
        f"{head}.weight",
        f"{head}.bias",
    ]
    assert len(other[f"{head}.bias"]) == 10


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 96)])
def test_auxiliary_classifiers_are_left_out_of_pretrained_networks_too(name, size, monkeypatch, tmp_path):
    published(monkeypatch, tmp_path, name, init_weights=False)
    model = torchvision_model(10, (3, size, size), name, pretrained=True)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 10)
    assert not any("aux" in path.lower() for path in model.state_dict())


def test_weights_that_cannot_be_downloaded_are_named_with_the_way_out(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        ValueError, match=r"^pretrained=true needs https://.*resnet18.*\.pth, .*no network.*: .*"
    ) as caught:
        torchvision_model(10, CIFAR, pretrained=True)
    assert f"{tmp_path}/hub/checkpoints" in str(caught.value)
    assert "\n" not in str(caught.value)
