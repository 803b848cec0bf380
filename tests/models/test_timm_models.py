import pytest
import torch

from kdexp.models.timm_models import timm_model

CIFAR = (3, 32, 32)


def feature_map(model, path):
    seen = []
    model.get_submodule(path).register_forward_hook(lambda _, i, output: seen.append(tuple(output.shape[1:])))
    model.eval()(torch.zeros(1, *CIFAR))
    return seen[0]


def test_the_small_stem_keeps_the_resolution_of_small_images():
    assert feature_map(timm_model(10, CIFAR), "layer4") == (512, 1, 1)
    assert feature_map(timm_model(10, CIFAR, stem="small"), "layer4") == (512, 4, 4)


def test_a_vision_transformer_is_told_the_size_or_gets_its_own():
    with pytest.raises(
        ValueError, match=r"^vit_tiny_patch16_224 must take input_shape \[3, 32, 32\] \(resize=SIZE .+$"
    ):
        timm_model(10, CIFAR, "vit_tiny_patch16_224")
    own = timm_model(10, CIFAR, "vit_tiny_patch16_224", img_size=32, patch_size=4)
    assert feature_map(own, "blocks.0") == (64 + 1, 192)
    resized = timm_model(10, CIFAR, "vit_tiny_patch16_224", resize=224)
    assert feature_map(resized, "blocks.0") == (196 + 1, 192)


def test_channels_and_tags_are_understood():
    assert timm_model(10, (1, 32, 32), "resnet18.a1_in1k").conv1.in_channels == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, r"name must be a classifier of timm \(did you mean .*resnet18.*\), got 'resnet81'"),
        ({"input_shape": (30,)}, r"resnet18 takes images: .*, got \[30\]"),
        ({"stem": "tiny"}, "stem must be keep or small, got tiny"),
        ({"colour": "red"}, r"options of resnet18 must be known to timm, got {'colour': 'red'} \(.*\)"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        timm_model(**{"num_classes": 10, "input_shape": CIFAR, **arguments})
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_are_named_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^pretrained=true needs timm's weights of resnet18, .*FILE.*$") as caught:
        timm_model(10, CIFAR, pretrained=True)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_kept_but_for_a_head_of_another_size(tmp_path):
    torch.manual_seed(5)
    weights = timm_model(1000, CIFAR).state_dict()
    torch.save(weights, tmp_path / "resnet18.pt")
    other = timm_model(10, CIFAR, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "resnet18.pt")})
    assert [path for path, w in other.state_dict().items() if not torch.equal(w, weights[path])] == [
        "fc.weight",
        "fc.bias",
    ]
