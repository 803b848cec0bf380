"""Files of weights: kdexp's own, what other people's code writes, and what must not be taken for weights."""

import argparse
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import kdexp
from kdexp.config.compose import compose
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run
from kdexp.experiment.trained_student import trained_student
from kdexp.models.resnet_cifar import resnet8
from kdexp.weights import load_weights, save_weights


def with_batch_norm():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
def test_weights_are_read_back_from_every_kind_of_file(tmp_path, suffix):
    network, other = with_batch_norm(), with_batch_norm()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_weights(network, path)
    elif suffix == ".pt":
        torch.save(network.state_dict(), path)
    else:
        torch.save({"state_dict": {f"student.{k}": v for k, v in network.state_dict().items()}, "epoch": 3}, path)
    load_weights(other, path, "teacher.weights")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in network.state_dict().items())


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_pickle_that_is_not_plain_weights_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save({"weight": Bomb()}, tmp_path / "zip-bomb.pt")
    for name in ("bomb.pt", "zip-bomb.pt"):
        with pytest.raises(ValueError, match=r"^teacher.weights must hold plain weights .* got .*bomb.pt$"):
            load_weights(nn.Linear(1, 1), tmp_path / name, "teacher.weights")
    assert not (tmp_path / "exploded").exists()


def damaged(tmp_path, kind):
    network = with_batch_norm()
    path = tmp_path / "weights.safetensors"
    save_weights(network, path)
    if kind == "missing":
        return tmp_path / "nowhere.pt"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    if kind == "truncated pt":
        path = tmp_path / "weights.pt"
        torch.save(network.state_dict(), path)
        path.write_bytes(path.read_bytes()[:-200])
    if kind == "empty":
        path = tmp_path / "weights.pt"
        path.touch()
    if kind in ("text", "list"):
        path = tmp_path / "weights.pt"
        if kind == "text":
            path.write_text("error: not a checkpoint")
        else:
            torch.save([torch.zeros(1)], path)
    if kind == "other architecture":
        save_file({"0.weight": torch.zeros(6, 5)}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"^teacher.weights must be an existing file, got .*nowhere.pt$"),
        ("truncated", r"^teacher.weights must be a whole file of weights, got .*weights.safetensors: .+$"),
        ("truncated pt", r"^teacher.weights must be a whole file of weights, got .*weights.pt: .+$"),
        ("text", r"^teacher.weights must .*, got .*weights.pt"),
        ("list", r"^teacher.weights must hold a state dict, got .*weights.pt with a list$"),
        ("empty", r"^teacher.weights must be a whole file of weights, got .*weights.pt: .+$"),
        (
            "other architecture",
            r"^teacher.weights must hold the weights of this network, got .*'0.weight' of shape \(6, 5\)",
        ),
    ],
)
def test_a_file_that_does_not_hold_the_weights_is_one_line(tmp_path, kind, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_weights(with_batch_norm(), damaged(tmp_path, kind), "teacher.weights")
    assert "\n" not in str(caught.value)


def before(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS = {
    "plain": (lambda state: state, ""),
    "ImageNet's example": (lambda state: {"state_dict": state, "arch": "resnet8", "epoch": 3}, "the entry state_dict"),
    "DataParallel": (lambda state: before("module.", state), "without the prefix module."),
    "ImageNet's example, DataParallel": (
        lambda state: {"state_dict": before("module.", state), "arch": "resnet8"},
        "the entry state_dict, without the prefix module.",
    ),
    "torch.compile": (lambda state: before("_orig_mod.", state), "without the prefix _orig_mod."),
    "benchmark": (lambda state: {"epoch": 240, "model": state, "best_acc": torch.tensor(79.4)}, "the entry model"),
    "NumPy's numbers and argparse's options": (
        lambda state: {"model": state, "best_acc": np.float64(79.4), "opt": argparse.Namespace(lr=0.1)},
        "the entry model",
    ),
    "net": (lambda state: {"net": state, "acc": 99.0}, "the entry net"),
    "Lightning, model": (
        lambda state: {"state_dict": before("model.", state)},
        "the entry state_dict, without the prefix model.",
    ),
    "Lightning, net": (
        lambda state: {"state_dict": before("net.", state)},
        "the entry state_dict, without the prefix net.",
    ),
    "a distiller's": (
        lambda state: {"state_dict": before("teacher.", state) | before("architecture.", state)},
        "the entry state_dict, without the prefix architecture. (teacher.weights_key=state_dict.teacher would fit too)",
    ),
    "averaged weights beside others": (
        lambda state: {"state_dict_ema": before("module.", state), "model": state},
        "the entry model (teacher.weights_key=state_dict_ema.module would fit too)",
    ),
    "averaged weights under names of their own": (
        lambda state: before("model.ema.", state) | before("model.net.", state),
        "without the prefix model.net. (teacher.weights_key=model.ema would fit too)",
    ),
    "without the counts of batches": (
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
        "",
    ),
}


@pytest.mark.parametrize(("form", "words"), FORMS.values(), ids=FORMS)
def test_the_forms_in_which_people_have_their_teachers_load(tmp_path, form, words):
    torch.manual_seed(0)
    network, other = (resnet8(10, (3, 8, 8)) for _ in range(2))
    torch.save(form(network.state_dict()), tmp_path / "teacher.pth.tar")
    assert load_weights(other, tmp_path / "teacher.pth.tar", "teacher.weights") == words
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def refused(tmp_path, content, network=None, **settings):
    torch.save(content, tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match=r"^teacher\.weights") as caught:
        load_weights(network or with_batch_norm(), tmp_path / "teacher.pth", "teacher.weights", **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_part_of_a_deeper_network_is_not_taken_for_the_whole_of_this_one(tmp_path):
    deeper = nn.Sequential(*with_batch_norm(), nn.Linear(3, 3))
    assert "with 4.weight, 4.bias" in refused(tmp_path, deeper.state_dict())
    assert "with m.4.weight" not in refused(tmp_path, {"model": before("m.", deeper.state_dict())})


def test_two_networks_that_fit_are_not_chosen_between(tmp_path):
    state = with_batch_norm().state_dict()
    message = refused(tmp_path, before("a.", state) | before("b.", state))
    assert message.startswith("teacher.weights must hold one network of this architecture, got two in ")
    assert message.endswith("'a.' and 'b.': choose with teacher.weights_key=a or teacher.weights_key=b")


@pytest.mark.parametrize("around", [lambda state: state, lambda state: {"state_dict": state}], ids=["top", "entry"])
def test_a_key_that_was_told_takes_the_other_network(tmp_path, around):
    torch.manual_seed(0)
    net, average, loaded, path = *(with_batch_norm() for _ in range(3)), tmp_path / "teacher.pth"
    torch.save(around(before("model.ema.", average.state_dict()) | before("model.net.", net.state_dict())), path)
    words = load_weights(loaded, path, "teacher.weights")
    assert torch.equal(loaded[0].weight, net[0].weight)
    key = re.search(r"\(teacher.weights_key=(\S+) would fit too\)$", words)[1]
    assert load_weights(loaded, path, "teacher.weights", key=key) == f"the entry {key}"
    assert torch.equal(loaded[0].weight, average[0].weight)


def test_when_nothing_fits_the_first_names_of_both_sides_are_shown(tmp_path):
    message = refused(tmp_path, {"epoch": 3, "weights": {"fc1.weight": torch.zeros(6, 4), "fc1.bias": torch.zeros(6)}})
    for words in ("without 0.weight, 0.bias", "with fc1.weight, fc1.bias", "entries epoch, weights", "weights_key"):
        assert words in message


def test_an_entry_and_other_names_can_be_given(tmp_path):
    network, other, path = with_batch_norm(), with_batch_norm(), tmp_path / "teacher.pth"
    names = {"0": "first", "1": "norm", "3": "second"}
    state = {f"{names[name[0]]}{name[1:]}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"best": {"weights": state}, "model": with_batch_norm().state_dict()}, path)
    rename = {"^first": "0", "^norm": "1", "^second": "3"}
    assert load_weights(other, path, "teacher.weights", key="best.weights", rename=rename) == "the entry best.weights"
    assert torch.equal(other[3].weight, network[3].weight)
    with pytest.raises(ValueError, match=r"^teacher.weights_key must name an entry with weights, got 'best.nothing'"):
        load_weights(other, path, "teacher.weights", key="best.nothing")


def test_the_wrong_number_of_classes_is_said_as_a_shape(tmp_path):
    other = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 100))
    message = refused(tmp_path, {"state_dict": before("module.", other.state_dict())})
    assert "'3.weight' of shape (100, 6) instead of (3, 6)" in message


@pytest.mark.parametrize(
    "around", [{"class_weights": {0: torch.ones(1)}}, {5: torch.ones(1)}, {0: {"a": torch.ones(1)}}]
)
def test_entries_that_numbers_name_are_passed_over(tmp_path, around):
    saved, network = (torch.nn.Linear(2, 3) for _ in range(2))
    torch.save({**around, "state_dict": saved.state_dict()}, tmp_path / "teacher.pt")
    load_weights(network, tmp_path / "teacher.pt", "teacher.weights")
    assert torch.equal(network.weight, saved.weight)


# What student.safetensors says of its network.

OWN = """
import math
from torch import nn

def net(num_classes, input_shape, width):
    inputs = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, num_classes))
"""

READER = """
import importlib, json, sys
import torch
from safetensors import safe_open

with safe_open(sys.argv[1], "pt") as file:
    about = json.loads(file.metadata()["kdexp"])
    state = {name: file.get_tensor(name) for name in file.keys()}
module, _, name = about["architecture"].rpartition(".")
network = getattr(importlib.import_module(module), name)(**about["settings"])
network.load_state_dict(state)
mean, std = (torch.tensor(about[key]).view(-1, 1, 1) for key in ("mean", "std"))
images = torch.linspace(0, 1, 64).view(1, *about["input_shape"])
logits = network.eval()((images - mean) / std)
assert "kdexp" not in sys.modules
print(json.dumps([logits.tolist(), about["classes"]]))
"""


def test_the_student_is_built_from_its_file_alone_without_kdexp(tmp_path, monkeypatch, store):
    (tmp_path / "its_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDEXP_TRUST", "its_own")
    config = compose(
        ["quick=true", "alpha=1", "tracking=none", "trainer.accelerator=cpu", "student._target_=its_own.net",
         "~student.hidden", "~student.dropout", "+student.width=5", "dataset.classes=[a,b,c,d,e,f,g,h,i,j]"],
        output_dir=tmp_path / "run", store_dir=store,
    )  # fmt: skip
    found = run(config)
    path = tmp_path / "run" / "student.safetensors"
    assert found["model"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", READER, path], env=environment, capture_output=True, check=True)
    logits, classes = json.loads(done.stdout)
    student = trained_student(Experiment(config), path, "run").eval()
    mean, std = (torch.tensor(list(config.dataset[key])).view(-1, 1, 1) for key in ("mean", "std"))
    expected = student((torch.linspace(0, 1, 64).view(1, 1, 8, 8) - mean) / std)
    assert torch.equal(torch.tensor(logits), expected)
    assert classes == list("abcdefghij")


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["kdexp"])


def test_what_the_header_says(tmp_path, store):
    settings = ["quick=true", "tracking=none", "trainer.accelerator=cpu", "teacher=cnn"]

    def trained(name, *overrides):
        run(compose([*settings, *overrides], output_dir=tmp_path / name, store_dir=store))
        return tmp_path / name

    about = header(trained("mutual", "scheme=mutual", "student=mlp") / "student.safetensors")
    assert about == {
        "kdexp_version": kdexp.__version__, "architecture": "kdexp.models.mlp.mlp",
        "settings": {"num_classes": 10, "input_shape": [1, 8, 8], "hidden": [64], "dropout": 0.0},
        "resize": None, "deployed_by": [], "task": "multiclass", "num_outputs": 10,
        "classes": list("0123456789"),
        "input_shape": [1, 8, 8], "mean": [0.3055], "std": [0.3761], "inputs": "uint8", "columns": None,
        "task_settings": {"_target_": "kdexp.tasks.classification.Classification"},
    }  # fmt: skip
    assert header(tmp_path / "mutual" / "peers" / "twin.safetensors") == about
    larger = header(trained("larger", "alpha=1", "student=resnet8", "+student.resize=32") / "student.safetensors")
    assert (larger["resize"], larger["settings"]["input_shape"]) == (32, [1, 32, 32])
    borrowed = header(trained("simkd", "feature_loss=simkd", "student=cnn") / "student.safetensors")
    assert borrowed["deployed_by"] == ["kdexp.feature_losses.simkd.SimKD"]


WRITER = """
import sys
from pathlib import Path
import torch
from kdexp.weights import save_weights

network = torch.nn.Linear(2, 2)
for parameter in network.parameters():
    torch.nn.init.ones_(parameter)
save_weights(network, Path(sys.argv[1]), {letter: letter for letter in "abcdefgh"})
"""


@pytest.mark.slow
def test_the_same_description_gives_the_same_file(tmp_path):
    network, digests = nn.Linear(2, 2), set()
    save_weights(network, tmp_path / "plain.safetensors")
    assert load_weights(nn.Linear(2, 2), tmp_path / "plain.safetensors", "run") == "", (
        "as those of an older kdexp: no metadata"
    )
    for name in "ab":  # in processes of their own: a hash table's order is drawn at each start
        subprocess.run([sys.executable, "-c", WRITER, tmp_path / name], check=True)
        digests.add((tmp_path / name).read_bytes())
    assert len(digests) == 1
