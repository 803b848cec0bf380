"""Teachers with another order of classes, or other classes: each is compared where both know it."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdexp.config.compose import compose
from kdexp.contracts import Batch, Outputs
from kdexp.experiment.check import check
from kdexp.experiment.known_classes import OnKnownClasses, check_loss
from kdexp.losses.dkd import DKD
from kdexp.losses.kd import KD, kd
from kdexp.tasks.classification import Classification
from kdexp.teacher.class_mapping import known_classes, map_classes, read
from kdexp.teacher.probabilities import FLOOR
from kdexp.teacher.saved_outputs import SavedOutputs
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest

NAMES = ["cat", "dog", "eel"]
LOGITS = torch.tensor([[1.0, 2.0, 0.5, -1.0], [0.0, -2.0, 3.0, 1.0]])


def mapped(order, kind="multiclass", logits=LOGITS):
    network = nn.Identity()
    map_classes(network, order, kind)
    return network(logits)


@pytest.mark.parametrize(
    ("name", "content", "order"),
    [
        ("a.json", '["eel", null, "cat", "dog"]', [2, 3, 0]),
        ("a.json", "[2, null, 0, 1]", [2, 3, 0]),
        ("a.json", '{"hound": "dog", "2": "cat"}', [2, 1, -1]),
        ("a.yaml", "- dog\n- null\n- 0\n- null\n", [2, 0, -1]),
        ("a.yaml", "hound: dog\nkatze: cat\n", [0, 1, -1]),
        ("a.csv", "hound,dog\nkatze,cat\n3,eel\n", [0, 1, 3]),
    ],
)
def test_a_file_says_which_output_is_which_class(tmp_path, name, content, order):
    (tmp_path / name).write_text(content)
    assert read(tmp_path / name, 4, NAMES, ["katze", "hound", "x", "y"]) == order


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '["cat", "dog"]', "must have a class or null for each of the teacher's 4 outputs, got 2"),
        ("a.json", '["cat", "dog", "cat", null]', "must name each class once, got 2: cat again in "),
        (
            "a.json",
            '{"0": "cat", "1": "cow"}',
            "must name classes of the data set by a name or a number up to 2, got 'cow'",
        ),
        ("a.json", '{"hund": "cat"}', "must name classes of the teacher by a number up to 3, got 'hund'"),
        ("a.json", '{"0": "cat"}', "must name at least two classes of the data set, got "),
        ("a.json", "{", "must be a whole json file, got "),
        ("a.json", "[" * 10**5, "must be a whole json file, got "),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "must be a whole yaml file, got "),
        ("a.yaml", "3", "must be a list of classes, or classes by classes, got int in "),
        ("a.txt", "cat", "must be an existing json, yaml or csv file of at most 1 MB, got "),
    ],
)
def test_what_is_none_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}[^\n]*$"):
        read(tmp_path / name, 4, NAMES, None)


def test_logits_come_in_the_data_sets_order(tmp_path):
    assert torch.equal(mapped([2, 3, 0]), LOGITS[:, [2, 3, 0]])
    np.save(tmp_path / "a.npy", LOGITS.numpy())
    saved = SavedOutputs(4, [1], str(tmp_path / "a.npy"), "logits")
    before = state_digest(saved)
    map_classes(saved, [2, 3, 0], "multiclass")
    assert torch.equal(saved.rows(LOGITS), LOGITS[:, [2, 3, 0]])
    assert state_digest(saved) != before


def test_a_class_that_the_teacher_does_not_know_is_all_but_impossible():
    found = mapped([2, -1, 0]).softmax(1)
    wanted = LOGITS[:, [2, 0]].softmax(1)
    assert torch.allclose(found[:, [0, 2]], wanted, atol=1e-6)
    assert found[:, 1].tolist() == pytest.approx([FLOOR, FLOOR], rel=1e-4)
    yes = mapped([2, -1, 0], "multilabel").sigmoid()
    assert yes[:, 1].tolist() == pytest.approx([FLOOR, FLOOR], rel=1e-4)
    assert torch.equal(yes[:, [0, 2]], LOGITS[:, [2, 0]].sigmoid())


def test_yes_and_no_are_one_logit():
    two = LOGITS[:, :2]
    assert torch.allclose(mapped([0, 1], "binary", two).sigmoid(), two.softmax(1)[:, 1:])
    assert torch.allclose(mapped([1, 0], "binary", two).sigmoid(), two.softmax(1)[:, :1])
    assert torch.equal(mapped([1, 0], "binary", two[:, :1]), -two[:, :1])


def test_an_ensemble_knows_what_all_of_it_know():
    networks = [nn.Identity() for _ in range(3)]
    map_classes(networks[0], [2, -1, 0], "multiclass")
    assert known_classes(networks[1:]) is None
    assert known_classes(networks) == [0, 2]
    map_classes(networks[1], [-1, 1, 0], "multiclass")
    assert known_classes(networks) == [2]
    map_classes(networks[2], [2, 1, 0], "multiclass")
    assert known_classes(networks[2:]) is None
    both = [nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())]
    map_classes(both[0], [2, 1, 0, 3], "multiclass")
    mean = Teacher(both)(LOGITS).logits.exp()
    assert torch.allclose(mean, (LOGITS[:, [2, 1, 0, 3]].softmax(1) + LOGITS.softmax(1)) / 2, atol=1e-6)


def test_the_soft_term_is_over_the_known_classes_and_the_hard_one_over_all():
    task, student = Classification(3), torch.randn(2, 3, requires_grad=True)
    batch, teacher = Batch(torch.zeros(2, 1), torch.tensor([1, 0])), mapped([2, -1, 0])
    soft = OnKnownClasses(task, (0, 2)).soft(KD(3.0), Outputs(student), Outputs(teacher), batch)
    assert torch.allclose(soft, kd(student[:, [0, 2]], LOGITS[:, [2, 0]], temperature=3.0))
    soft.backward()
    assert student.grad[:, 1].tolist() == [0, 0]
    assert OnKnownClasses(task, (0, 2)).measure == "acc"
    hard = (each.hard(Outputs(student), batch) for each in (task, OnKnownClasses(task, (0, 2))))
    assert len({value.item() for value in hard}) == 1


def test_a_loss_that_reads_labels_needs_all_classes():
    check_loss(KD(4.0), 3, "multiclass")
    with pytest.raises(
        ValueError, match=r"^loss must not read labels where teacher.classes leaves out classes .*, got DKD$"
    ):
        check_loss(DKD(), 3, "multiclass")
    with pytest.raises(ValueError, match=r"^teacher.classes must leave classes to compare .*, got 1$"):
        check_loss(KD(4.0), 1, "multiclass")


@pytest.mark.slow
def test_the_same_teacher_in_another_order_of_classes_teaches_the_same_student(tmp_path, store):
    from kdexp.experiment.experiment import Experiment
    from kdexp.experiment.run import run
    from kdexp.experiment.saved_logits import save_logits
    from kdexp.teacher.outputs_file import Table, write
    from kdexp.teacher.outputs_file import read as tables

    settings = ["experiment=smoke", "tracking=none", "augment=none", "trainer.max_epochs=1", "trainer.accelerator=cpu"]

    def train(name, *more):
        found = run(compose([*settings, *more], output_dir=tmp_path / name, store_dir=store))
        return found["model"]["sha256"], found["teacher"]["test"]["acc"]

    experiment = Experiment(compose(settings, output_dir=tmp_path, store_dir=store))
    save_logits(experiment, tmp_path / "own.safetensors")
    own = tables(tmp_path / "own.safetensors", 10**6, 10)
    order = np.random.default_rng(0).permutation(experiment.config.dataset.num_classes)
    write(tmp_path / "other.safetensors", {name: Table(t.index, t.values[:, order]) for name, t in own.items()})
    (tmp_path / "classes.json").write_text(json.dumps(order.tolist()))
    one = train("own", "teacher=outputs", f"teacher.file={tmp_path / 'own.safetensors'}")
    mapping = f"teacher.classes={tmp_path / 'classes.json'}"
    assert one == train("mapped", "teacher=outputs", f"teacher.file={tmp_path / 'other.safetensors'}", mapping)
    (tmp_path / "few.json").write_text(json.dumps([None, None, *order[2:].tolist()]))
    mapping = f"teacher.classes={tmp_path / 'few.json'}"
    few = train("few", "teacher=outputs", f"teacher.file={tmp_path / 'other.safetensors'}", mapping)
    assert few[0] != one[0]
    assert few[1] < one[1]


PAGE = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines() if line.startswith("kdexp-")]


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_of_the_page_passes_the_checks(typed):
    words = [word for word in shlex.split(typed)[1:] if "=" in word]
    check(compose(words, output_dir="x", store_dir="y"))
