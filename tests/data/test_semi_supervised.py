"""experiment=semi_supervised: what is hidden is hidden from everybody."""

from dataclasses import replace
from functools import wraps

import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.compose import compose
from kdexp.contracts import UNLABELED
from kdexp.data import digits, splits
from kdexp.experiment.check import check
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run

SHORT = ["tracking=none", "trainer.max_epochs=2", "teacher.recipe.max_epochs=2"]


def composed(folder, *overrides, **settings):
    return compose(["experiment=semi_supervised", *overrides], output_dir=folder, **settings)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=3"],
        ["dataset.subset_seed=5"],
        ["dataset.train_fraction=0.7", "dataset.imbalance_ratio=3", "dataset.unlabeled_fraction=0.9"],
    ],
)
def test_the_teacher_is_trained_on_exactly_the_samples_that_the_student_has_labels_of(tmp_path, overrides):
    config = composed(tmp_path, *overrides)
    check(config)
    data = Experiment(config).data
    student, teacher = data.student.splits.train, data.for_teacher(config.teacher).splits.train
    labelled = student.target != UNLABELED
    hidden = round(config.dataset.unlabeled_fraction * len(student))
    assert int((~labelled).sum()) == hidden > len(student) / 2
    assert torch.equal(teacher.index, student.index[labelled])
    assert torch.equal(teacher.target, student.target[labelled])


def test_the_default_preset_has_65_labels_of_all_ten_classes(tmp_path):
    config = composed(tmp_path)
    teacher = Experiment(config).data.for_teacher(config.teacher).splits.train
    assert len(teacher) == 65
    assert (teacher.target.bincount(minlength=10) >= 6).all()


def test_a_teacher_sees_all_labels_by_default_and_its_seed_chooses_what_its_recipe_leaves_out(tmp_path):
    config = compose(["teacher=ensemble", "dataset.unlabeled_fraction=0.5"], output_dir=tmp_path)
    data = Experiment(config).data
    assert [member.recipe.subset_seed for member in config.teacher.members.values()] == [0, 1, 2]
    for member in config.teacher.members.values():
        assert len(data.for_teacher(member).splits.train) == len(data.student.splits.train)
        member.recipe.unlabeled_fraction = 0.8
    sets = [set(data.for_teacher(member).splits.train.index.tolist()) for member in config.teacher.members.values()]
    assert len(sets[0]) == round(0.2 * len(data.student.splits.train))
    assert sets[0] != sets[1]


def test_multilabel_rows_that_are_hidden_from_a_teacher_are_left_out(tmp_path):
    config = compose(["experiment=smoke", "dataset.kind=multilabel", "teacher.recipe.unlabeled_fraction=0.5"],
                     output_dir=tmp_path)  # fmt: skip
    data = Experiment(config).data
    target = data.for_teacher(config.teacher).splits.train.target
    assert len(target) == len(data.student.splits.train) - round(0.5 * len(data.student.splits.train))
    assert set(target.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_teacher_needs_labels(tmp_path, share):
    config = composed(tmp_path, f"teacher.recipe.unlabeled_fraction={share}")
    with pytest.raises(ValueError, match=rf"^teacher.recipe.unlabeled_fraction must be in \[0, 1\), got {share}$"):
        check(config)


@pytest.fixture
def permuted(monkeypatch, tmp_path):
    """Shuffle the unlabeled samples of the digits, while val, and what is hidden, are chosen as from the true ones."""
    orders = {}
    chosen = splits.stratified_order

    def as_before(target, seed, stream):
        return orders.setdefault((len(target), seed, stream), chosen(target, seed, stream))

    monkeypatch.setattr(splits, "stratified_order", as_before)
    load = digits.load

    def permute(*overrides):
        config = composed(tmp_path / "any", *overrides)
        train = Experiment(config).data.student.splits.train
        Experiment(config).data.for_teacher(config.teacher)
        hidden = train.index[train.target == UNLABELED]

        @wraps(load)
        def changed():
            source = load()
            labels = source.train_target.clone()
            shuffled = torch.randperm(len(hidden), generator=torch.Generator().manual_seed(0))
            labels[hidden] = labels[hidden[shuffled]]
            assert (labels != source.train_target).float().mean() > 0.5
            return replace(source, train_target=labels)

        monkeypatch.setattr(digits, "load", changed)

    return permute


def trained(tmp_path, name, *overrides):
    found = run(composed(tmp_path / name, *SHORT, *overrides, store_dir=tmp_path / name / "store"))
    (teacher,) = (tmp_path / name / "store").glob("teachers/*/teacher.safetensors")
    return found["metrics"], load_file(teacher), load_file(tmp_path / name / "student.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_hidden_labels_do_not_matter_to_teacher_student_and_metrics(tmp_path, permuted):
    metrics, teacher, student = trained(tmp_path, "true")
    permuted()
    again = trained(tmp_path, "permuted")
    assert metrics == again[0]
    assert equal(teacher, again[1])
    assert equal(student, again[2])


def test_they_would_matter_to_a_teacher_from_which_they_are_not_hidden(tmp_path, permuted):
    seen = "teacher.recipe.unlabeled_fraction=0"
    _, teacher, student = trained(tmp_path, "true", seen)
    permuted(seen)
    again = trained(tmp_path, "permuted", seen)
    assert not equal(teacher, again[1])
    assert not equal(student, again[2])
