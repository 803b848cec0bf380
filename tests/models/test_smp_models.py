import subprocess
import sys

import pytest
import torch

from kdexp.models.smp_models import smp_model


@pytest.mark.slow
def test_without_the_library_one_line_says_how_to_get_it():
    code = (
        "import sys; sys.modules['segmentation_models_pytorch'] = None\n"
        "from kdexp.models.smp_models import smp_model\n"
        "try:\n    smp_model(1, (3, 32, 32))\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rule = "must be installed to build its networks: pip install 'kdexp[smp]'"
    assert done.stdout == f"segmentation_models_pytorch {rule}\n"


@pytest.fixture(scope="module")
def smp():
    return pytest.importorskip("segmentation_models_pytorch", reason="pip install 'kdexp[smp]'")


@pytest.fixture(scope="module")
def architectures(smp):
    return list(smp.MODEL_ARCHITECTURES_MAPPING)


# Least sizes of images.
LARGE = {"pan": 130, "dpt": 224}
DPT = {"encoder": "tu-vit_tiny_patch16_224"}


def test_every_architecture_is_the_librarys_at_its_own_sizes_and_takes_others(smp, architectures):
    for name in architectures:
        size = LARGE.get(name, 64)
        options = DPT if name == "dpt" else {"encoder": "tu-mobilenetv3_small_050"}
        ours = smp_model(3, (1, size, size), name, **options).eval()
        theirs = smp.create_model(name, options["encoder"], None, in_channels=1, classes=3).eval()
        theirs.load_state_dict(ours.state_dict())
        whole = torch.rand(1, 1, 224 if name == "dpt" else 160, 224)
        torch.testing.assert_close(ours(whole), theirs(whole))
        odd = whole[..., :-5, :-9]
        assert ours(odd).shape == (1, 3, *odd.shape[2:])


def test_its_own_options_reach_it(smp):
    small = smp_model(1, (3, 32, 32), encoder_depth=3, decoder_channels=(64, 32, 16))
    assert small.segmentation_head[0].in_channels == 16
    assert small.eval()(torch.rand(1, 3, 33, 20)).shape == (1, 1, 33, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18"}, "name must be one of unet, .*, got 'resnet18'"),
        ({"encoder": "resnet81"}, "encoder must be one of .*, got 'resnet81'"),
        ({"encoder": "tu-hf-hub:someone/network"}, "encoder must be one of .*, got 'tu-hf-hub:someone/network'"),
        ({"input_shape": (30,)}, r"unet takes images: .*, got \[30\]"),
        ({"activation": "sigmoid"}, "options of unet must be of encoder_depth, .*, got {'activation': 'sigmoid'}"),
        ({"cache_dir": "/"}, "options of unet must be of encoder_depth, .*, got {'cache_dir': '/'}"),
        ({"encoder_depth": 9}, "unet must take resnet18 and its options, got {'encoder_depth': 9} .*"),
        ({"name": "pan"}, r"pan with resnet18 must take input_shape \[3, 32, 32\], got .*"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(smp, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        smp_model(**{"num_classes": 2, "input_shape": (3, 32, 32), **arguments})
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_are_named_with_the_way_out(smp, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^pretrained=true needs the weights of resnet18, .* a file$") as caught:
        smp_model(2, (3, 32, 32), pretrained=True)
    assert "\n" not in str(caught.value)
