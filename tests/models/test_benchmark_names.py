"""The checkpoints of the CIFAR-100 benchmark load by name, and are the functions that its own classes are.

benchmark_names.json.xz holds, of each of its architectures, the name, shape and dtype of every tensor that its class
saves, in order, and the first five logits that its class gives (RepDistiller at b84f547, in float64) for the random
weights and inputs below.
"""

import argparse
import json
import lzma
import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from kdexp.config.compose import compose
from kdexp.experiment.networks import build_network
from kdexp.models.benchmark_names import BENCHMARK_NAMES
from kdexp.weights import load_weights

KNOWN = json.loads(lzma.decompress((Path(__file__).parent / "benchmark_names.json.xz").read_bytes()))
OURS = {
    "ResNet18": ["torchvision", "teacher.name=resnet18", "teacher.stem=small"],
    "ResNet34": ["timm", "teacher.name=resnet34", "teacher.stem=small"],
    "ResNet50": ["torchvision", "teacher.name=resnet50", "teacher.stem=small"],
    "MobileNetV2": ["mobilenetv2_half"],
    "ShuffleV1": ["shufflenetv1"],
    "ShuffleV2": ["shufflenetv2"],
}


def weights(architecture):
    """A state dict with random statistics too, by exact operations alone: the same bits on every machine."""
    random, state = torch.Generator().manual_seed(0), OrderedDict()
    names = KNOWN["names"][architecture]
    damping = max(1, len(names) / 150)
    for name, shape, dtype in names:
        if dtype == "int64":
            state[name] = torch.tensor(240 * 782)
            continue
        uniform = torch.rand(shape, generator=random, dtype=torch.float64)
        if len(shape) > 1:
            value = (2 * uniform - 1) * math.sqrt(6 / math.prod(shape[1:]))
        elif name.endswith(("bias", "running_mean")):
            value = uniform - 0.5
        elif name.endswith("running_var"):
            value = (uniform + 0.5) * damping
        else:
            value = uniform + 0.5
        state[name] = value.float()
    return state


def inputs():
    """Images (1, 3, 32, 32) in [-2, 2)."""
    whole = torch.randint(-2048, 2048, (4, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    return whole.double()[:1] / 1024


def ours(architecture):
    words = OURS.get(architecture, [architecture])
    config = compose(["dataset=cifar100", f"teacher={words[0]}", *words[1:]], output_dir="unused")
    return build_network(config.teacher, "teacher", config.dataset, config.task)


def published(state):
    """What RepDistiller saves of a teacher after its last epoch."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": [{"lr": 0.05, "params": [0]}]}
    return {"epoch": 240, "model": state, "accuracy": torch.tensor(79.42), "optimizer": optimizer}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", KNOWN["names"])
def test_every_architecture_loads_by_name_and_gives_the_benchmarks_logits(architecture, tmp_path):
    torch.save(published(weights(architecture)), tmp_path / "ckpt_epoch_240.pth")
    built = ours(architecture)
    words = load_weights(built, tmp_path / "ckpt_epoch_240.pth", "teacher.weights", dialects=BENCHMARK_NAMES)
    assert words.startswith("the entry model")
    with torch.no_grad():
        logits = built.double().eval()(inputs())[0, :5]
    expected = torch.tensor(KNOWN["expected"][architecture], dtype=torch.float64)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


LAYOUTS = {
    "epoch": published,
    "best": lambda state: {"epoch": 216, "model": state, "best_acc": torch.tensor(79.55), "optimizer": {}},
    "last": lambda state: {"opt": argparse.Namespace(model="resnet8", lr=0.05), "model": state, "optimizer": {}},
    "student": lambda state: {"model": state},
    "trainer": lambda state: {
        "epoch": 240,
        "model": {f"module.student.{name}": value for name, value in state.items()}
        | {f"module.teacher.{name}": value for name, value in state.items()},
    },
    "plain": lambda state: state,
    "without counters": lambda state: {"model": {k: v for k, v in state.items() if v.is_floating_point()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("archive", [True, False], ids=["", "before PyTorch 1.6"])
def test_every_layout_that_the_benchmark_writes_loads(layout, archive, tmp_path):
    path = tmp_path / "teacher.pth"
    torch.save(LAYOUTS[layout](weights("resnet8")), path, _use_new_zipfile_serialization=archive)
    built = ours("resnet8")
    load_weights(built, path, "teacher.weights", dialects=BENCHMARK_NAMES)
    assert torch.equal(built.state_dict()["stem.0.weight"], weights("resnet8")["conv1.weight"])


def test_a_network_of_other_names_with_the_same_shapes_is_refused(tmp_path):
    """torchdistill's wide_resnet fits tensor by tensor, but begins its shortcuts elsewhere."""
    renamed = {
        name.replace("block", "layer").replace(".layer.", ".").replace("convShortcut", "shortcut.0"): value
        for name, value in weights("wrn_16_2").items()
    }
    torch.save(renamed, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"^teacher.weights must hold the weights of this network, got .*other.pth"):
        load_weights(ours("wrn_16_2"), tmp_path / "other.pth", "teacher.weights", dialects=BENCHMARK_NAMES)
