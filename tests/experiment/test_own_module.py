"""A student and a teacher that are classes of a person's own, named on the command line (student=module)."""

import json
import sys

import pytest
import torch
from safetensors import safe_open

from kdexp.config import trust
from kdexp.config.compose import compose
from kdexp.experiment import finished_run
from kdexp.experiment.check import check
from kdexp.experiment.dry_build import dry_build
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.keys import teacher_key
from kdexp.experiment.run import run

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes: int, width: int = 8):
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.classifier(self.hidden(x))


class Fixed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 3))


class Dict(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}


def settings(**settings):
    return settings


def shaped(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), outputs))
"""
WORDS = ("experiment=smoke", "tracking=none", "student=module")


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    """A file with classes, which is trusted."""
    (tmp_path / "nets_of_mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDEXP_TRUST", "nets_of_mine")
    return tmp_path / "nets_of_mine.py"


def built(folder, *words):
    config = compose([*WORDS, *words], output_dir=folder / "run", store_dir=folder / "store")
    check(config)
    experiment = Experiment(config)
    dry_build(experiment)
    return experiment


def test_a_class_is_built_with_what_it_takes_of_the_data_set(tmp_path):
    student = built(tmp_path, "student.target=nets_of_mine.Net", "+student.arguments.width=16").new_student()
    assert student.classifier.weight.shape == (10, 16)
    shaped = ["student.target=nets_of_mine.shaped", "+student.arguments.outputs=10"]
    assert built(tmp_path, *shaped).new_student()[1].in_features == 64
    assert built(tmp_path, *shaped, "+student.resize=4").new_student()[1].in_features == 16


NET, OF_WIDTH = "nets_of_mine.Net", "+student.arguments.width"
UNTRUSTED = "student.target must be a network .* KDEXP_TRUST names, got"
LOGITS = r"student must give \(N, 10\) logits for dataset=synthetic, got"


@pytest.mark.parametrize(
    ("target", "words", "message"),
    [
        ("???", [], "student.target must be given, got nothing"),
        ("nets_of_mine.Other", [], "student.target must name something that can be imported, got 'nets_of_mine.*"),
        ("nets_of_nobody.Net", [], f"{UNTRUSTED} 'nets_of_nobody.Net'"),
        ("nets_of_mine.nn.Linear", [], f"{UNTRUSTED} 'nets_of_mine.nn.Linear'"),
        ("Net", [], f"{UNTRUSTED} 'Net'"),
        ("nets_of_mine.settings", [], "student: nets_of_mine.settings must make a torch.nn.Module, got dict"),
        ("nets_of_mine.Fixed", [], rf"{LOGITS} \(2, 3\)"),
        ("nets_of_mine.Dict", [], f"{LOGITS} dict; for task=classification there are .*"),
        (NET, ["+student.arguments.widht=4"], f"student: {NET}: .* unexpected keyword argument 'widht'"),
        (NET, [f"{OF_WIDTH}=wide"], "student.arguments.width must be a whole number, got wide"),
        (NET, [f"{OF_WIDTH[1:]}=4"], rf"student.arguments.width has no default, .*: \{OF_WIDTH}=4"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_training(tmp_path, target, words, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        built(tmp_path, f"student.target={target}", *words)


def test_a_trained_teacher_is_another_one_when_its_code_is(tmp_path, nets):
    words = ["teacher=module", "teacher.target=nets_of_mine.Net", "student=mlp"]

    def key():
        config = compose([*WORDS, *words], output_dir=tmp_path)
        return teacher_key(config.teacher, config.dataset, config.task, "content", {})

    sys.modules.pop("nets_of_mine", None)  # of another test, from another folder
    before = key()
    assert before == key()
    nets.write_text(CODE + "\n")
    assert before != key()


def test_a_run_of_ones_own_classes_is_measured_again_from_its_folder(tmp_path, store):
    words = ["student.target=nets_of_mine.Net", "+student.arguments.width=16", "teacher=module",
             "teacher.target=nets_of_mine.Net", "+teacher.arguments.width=32"]  # fmt: skip
    config = compose([*WORDS, *words], output_dir=tmp_path / "run", store_dir=store)
    found = run(config)
    with safe_open(tmp_path / "run" / "student.safetensors", "pt") as file:
        description = json.loads(file.metadata()["kdexp"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert description["architecture"] == "nets_of_mine.Net"
    assert description["settings"] == {"num_classes": 10, "width": 16}
    network = trust.find(description["architecture"], "network")(**description["settings"])
    network.load_state_dict(state)
    assert network(torch.zeros(1, *description["input_shape"])).shape == (1, 10)
    again = finished_run.run(compose([f"run={tmp_path}/run", "accelerator=cpu", f"store_dir={store}"], "eval"))
    assert again["acc"] == pytest.approx(found["metrics"]["test"]["best"]["acc"])
    assert run(config)["metrics"] == found["metrics"]
