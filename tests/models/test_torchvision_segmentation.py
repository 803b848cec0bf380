import copy
import pickle
import urllib.error

import pytest
import torch
from torchvision import models

from kdexp.models.torchvision_segmentation import torchvision_segmentation

SMALL = "lraspp_mobilenet_v3_large"


def test_it_is_torchvisions_network_whose_out_alone_is_returned():
    torch.manual_seed(0)
    ours = torchvision_segmentation(5, (3, 40, 50), "fcn_resnet50").eval()
    theirs = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 37, 51)
    logits = ours(images)
    assert logits.shape == (2, 5, 37, 51)
    assert torch.equal(logits, theirs(images)["out"])


@pytest.mark.parametrize("name", models.list_models(module=models.segmentation))
def test_every_network_is_built_for_gray_images_and_one_output(name):
    with torch.device("meta"):
        network = torchvision_segmentation(1, (1, 37, 51), name)
    assert network(torch.empty(2, 1, 40, 33, device="meta")).shape == (2, 1, 40, 33)


def test_a_copy_and_a_network_of_another_process_return_logits_too():
    network = torchvision_segmentation(3, (3, 32, 32)).eval()
    images = torch.rand(2, 3, 32, 32)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(images), network(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18"}, "name must be one of deeplabv3_.*, lraspp_mobilenet_v3_large, got 'resnet18'"),
        ({"input_shape": (30,)}, rf"{SMALL} takes images: .*, got \[30\]"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=f"^{message}$") as caught:
        torchvision_segmentation(**{"num_classes": 3, "input_shape": (3, 32, 32), "name": SMALL, **arguments})
    assert "\n" not in str(caught.value)


def published(monkeypatch, tmp_path, name, **options):
    """Puts weights where torchvision keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(5)
    weights = models.get_model(name, weights=None, weights_backbone=None, **options).state_dict()
    file = models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(weights, tmp_path / "hub" / "checkpoints" / file)
    # The published files carry their digest in their names; this one has another content.
    real = torch.hub.load_state_dict_from_url
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: real(a[0], progress=False))
    return weights


@pytest.mark.parametrize(
    ("name", "options", "heads"),
    [
        (SMALL, {}, {"classifier.low_classifier", "classifier.high_classifier"}),
        ("deeplabv3_mobilenet_v3_large", {"aux_loss": True}, {"classifier.4"}),
    ],
)
def test_pretrained_weights_are_kept_but_for_a_head_of_another_size(name, options, heads, monkeypatch, tmp_path):
    weights = published(monkeypatch, tmp_path, name, **options)
    same, other = (torchvision_segmentation(n, (3, 33, 40), name, pretrained=True).state_dict() for n in (21, 4))
    assert all(torch.equal(same[path], weights[path]) for path in same)
    assert {path.rpartition(".")[0] for path in other if not torch.equal(other[path], weights[path])} == heads
    assert not any(path.startswith("aux") for path in same)


def test_weights_that_cannot_be_downloaded_are_named_with_the_way_out(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ValueError, match=r"^pretrained=true needs https://.*\.pth, .*no network.*: .*") as caught:
        torchvision_segmentation(10, (3, 32, 32), pretrained=True)
    assert f"{tmp_path}/hub/checkpoints" in str(caught.value)
