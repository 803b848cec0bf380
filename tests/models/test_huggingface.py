"""A folder as transformers saves it, of an image classifier: the same network, without its code or its pickles."""

import json
import re
from pathlib import Path

import pytest
import torch

from kdexp.models.complexity import macs, parameters
from kdexp.models.huggingface import huggingface

transformers = pytest.importorskip("transformers", reason="pip install 'kdexp[text]'")
INPUTS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet():
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=5
    )
    return transformers.ResNetForImageClassification(config)


def vit():
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, image_size=16, patch_size=8,
        num_labels=5,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


@pytest.fixture(params=[resnet, vit])
def saved(request, tmp_path):
    torch.manual_seed(0)
    model = request.param().eval()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_a_folders_network_is_what_transformers_makes_of_it(saved):
    model, folder = saved
    network = huggingface(5, [3, 16, 16], str(folder)).eval()
    with torch.no_grad():
        assert torch.allclose(network(INPUTS), model(INPUTS).logits, atol=1e-6)
    assert parameters(network) == sum(p.numel() for p in model.parameters())
    assert macs(network, [3, 16, 16]) > 0


def test_without_its_weights_the_folder_gives_the_architecture_alone(saved):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    torch.manual_seed(1)
    network = huggingface(5, [1, 16, 16], str(folder), pretrained=False).eval()
    assert network(INPUTS[:, :1]).shape == (3, 5)
    assert huggingface(4, [1, 16, 16], str(folder), pretrained=False).eval()(INPUTS[:, :1]).shape == (3, 4)


def test_what_is_not_to_be_read_is_refused_in_one_line(tmp_path):
    resnet().save_pretrained(tmp_path)

    def refused(message, classes=5, channels=3, folder=tmp_path):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}[^\n]*$"):
            huggingface(classes, [channels, 16, 16], str(folder))

    refused("folder must be a local folder (nothing is fetched by name), got google/vit", folder="google/vit")
    refused("folder must hold a classifier of 4 labels, got 5 in ", classes=4)
    refused("folder must hold a network with num_channels 1, got 3 in ", channels=1)
    config = Path(tmp_path, "config.json")
    whole = config.read_text()
    config.write_text(json.dumps(json.loads(whole) | {"auto_map": {"AutoConfig": "evil.Config"}}))
    refused("folder must have a config.json of transformers' own, got ")
    config.write_text(whole)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    refused(
        "folder must have its weights in model.safetensors, got pytorch_model.bin, a pickle, which is not read, in "
    )
