"""What chooses the best epoch of students, controls and teachers."""

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from kdexp.config import quick
from kdexp.config.compose import compose, plain
from kdexp.contracts import Source
from kdexp.experiment import keys
from kdexp.experiment.check import check
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.metadata import run_metadata
from kdexp.experiment.run import run
from kdexp.metrics import monitor
from kdexp.schemes.adversarial import AdversarialDistiller
from kdexp.sweeps import job, sweep
from kdexp.tasks.classification import Classification
from kdexp.training.distiller import Distiller

SMOKE = ["experiment=smoke", "tracking=none"]


def rare(train: int = 6000, test: int = 6000) -> Source:
    """Two overlapping clouds, one of them 2 % of the samples: to say 0 always is right in 98 of 100."""
    generator = torch.Generator().manual_seed(0)

    def part(count):
        target = (torch.rand(count, generator=generator) < 0.02).long()
        return torch.randn(count, 8, generator=generator) + 0.6 * target[:, None], target

    return Source(*part(train), *part(test))


RARE = [
    "dataset=breast_cancer", "dataset.source._target_=test_monitor.rare", "dataset.name=rare", "dataset.kind=binary",
    "dataset.num_classes=2", "dataset.input_shape=[8]", "dataset.mean=[0.0]", "dataset.std=[1.0]", "student=mlp",
    "teacher=mlp", "teacher.recipe.max_epochs=8", "trainer.max_epochs=8",
]  # fmt: skip


def experiment(folder, store, *overrides):
    return run(compose([*SMOKE, *overrides], output_dir=folder, store_dir=store))


def test_the_best_epoch_of_a_table_is_the_one_that_a_training_would_choose():
    rows = [{"epoch": 0, "val/acc": 0.5, "val/nll": 2.0}, {"epoch": 1, "val/acc": 0.5, "val/nll": 1.0}, {"epoch": 2}]
    assert monitor.best_epoch(rows, "val/acc")["epoch"] == 1
    assert monitor.best_epoch([{"epoch": 0, "val/loss": 2.0}, {"epoch": 1, "val/loss": 3.0}], "val/loss")["epoch"] == 0
    assert monitor.best_epoch(rows, "val/f1") == {}


def test_the_score_of_an_epoch_is_greater_where_it_is_better_and_a_tie_is_decided():
    better, worse = {"val/acc": 0.9, "val/nll": 0.2}, {"val/acc": 0.9, "val/nll": 0.3}
    assert monitor.score(better, "val/acc", "val/nll") > monitor.score(worse, "val/acc", "val/nll")
    assert monitor.score(better, "val/acc") == monitor.score(worse, "val/acc")
    assert monitor.score(better, "val/nll") > monitor.score(worse, "val/nll")
    assert monitor.score({**worse, "val/acc": 0.91}, "val/acc", "val/nll") > monitor.score(better, "val/acc", "val/nll")


@pytest.mark.parametrize(
    ("kind", "classes", "chosen_by"),
    [
        ("multiclass", 3, "val/acc"),
        ("multiclass", 2, "val/auc"),
        ("binary", 2, "val/auc"),
        ("multilabel", 9, "val/auc"),
    ],
)
def test_where_the_answer_is_yes_or_no_the_auc_chooses_unless_something_is_set(kind, classes, chosen_by):
    usual = Classification(1 if kind == "binary" else classes, kind).monitor
    assert monitor.rule("auto", usual, attacked=False) == (chosen_by, "val/nll")
    assert monitor.rule("auto", usual, attacked=True) == ("val/robust_acc", "val/nll")
    assert monitor.rule("val/f1", usual, attacked=False) == ("val/f1", "val/nll")
    # A configuration of an older kdexp: the first of the epochs with the highest accuracy.
    assert monitor.rule(None, usual, attacked=False) == ("val/acc", None)
    assert monitor.rule(None, usual, attacked=True) == ("val/robust_acc", None)


def test_a_distiller_for_a_trainer_of_ones_own_is_chosen_by_the_same_rule_as_a_run():
    many = Classification(10).monitor
    assert (Distiller.monitor, Distiller.tie_breaker) == monitor.rule("auto", many, attacked=False)
    assert (AdversarialDistiller.monitor, AdversarialDistiller.tie_breaker) == monitor.rule("auto", many, attacked=True)


@pytest.mark.parametrize(
    "name", sorted(monitor.DIRECTIONS.keys() - {"val/robust_acc", *monitor.OF_MASKS, *monitor.OF_IMAGES})
)
def test_any_validation_metric_can_choose(tmp_path, store, name):
    found = experiment(
        tmp_path, store, "alpha=1", "trainer.max_epochs=4", "optimizer.lr=0.05", f"trainer.monitor={name}"
    )
    rows = [dict(zip(lines[0], line, strict=True)) for lines in [table(tmp_path)] for line in lines[1:]]
    sign = 1 if monitor.DIRECTIONS[name] == "max" else -1
    wanted = max(range(4), key=lambda epoch: (sign * float(rows[epoch][name]), -float(rows[epoch]["val/nll"])))
    value = float(rows[wanted][name])
    assert found["epochs"] == {"best": wanted, "last": 3, "planned": 4, "monitor": name, "value": value}
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == wanted


def table(folder):
    return [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.monitor=val/iou"], r"^trainer.monitor must be one of auto, val/acc, .*, got val/iou$"),
        (["trainer.monitor=val/miou"], r"^trainer.monitor must be a metric of classification, got val/miou$"),
        (["teacher.recipe.monitor=val/dice"], r"^teacher.recipe.monitor must be a metric of classification, got .*$"),
        (["trainer.monitor=acc"], r"^trainer.monitor must be one of .*, got acc$"),
        (["trainer.monitor=val/agreement"], r"^trainer.monitor must be one of .*, got val/agreement$"),
        (["trainer.monitor=val/robust_acc"], r"^trainer.monitor must be one of .*, got val/robust_acc$"),
        (["trainer.monitor=val/acc_top5", "dataset.num_classes=5"], r"^trainer.monitor must be .*, got val/acc_top5$"),
        (["teacher.recipe.monitor=val/x"], r"^teacher.recipe.monitor must be one of auto, .*, got val/x$"),
        (
            ["scheme=rslad", "trainer.monitor=val/robust_acc"],
            r"^teacher.recipe.monitor must be .*, got val/robust_acc$",
        ),
    ],
    ids=" ".join,
)
def test_what_cannot_choose_is_refused_before_anything_is_loaded(overrides, message):
    with pytest.raises(ValueError, match=message):
        check(compose([*SMOKE, *overrides], output_dir="x"))


def one_class() -> Source:
    inputs = torch.randn(200, 8)
    target = torch.arange(200) % 2
    val = inputs[:20], torch.zeros(20, dtype=torch.int64)
    return Source(inputs, target, inputs, target, val=val)


@pytest.mark.parametrize("setting", ["trainer.monitor", "teacher.recipe.monitor"])
def test_an_auc_that_val_cannot_give_is_refused_before_training(tmp_path, monkeypatch, setting):
    monkeypatch.setenv("KDEXP_TRUST", "test_monitor")
    other = "trainer.monitor=val/acc" if setting != "trainer.monitor" else "teacher.recipe.monitor=val/acc"
    settings = [*RARE, "dataset.source._target_=test_monitor.one_class", "dataset.batch_size=20", other]
    with pytest.raises(ValueError, match=rf"^{setting} must be defined on val, got val/auc, and only one class there$"):
        experiment(tmp_path / "run", tmp_path / "store", *settings, f"{setting}=val/auc")
    assert not (tmp_path / "store" / "teachers").exists()


def test_where_val_has_one_class_the_nll_chooses_unless_something_is_set(tmp_path, store, monkeypatch):
    monkeypatch.setenv("KDEXP_TRUST", "test_monitor")
    data = [*RARE, "dataset.source._target_=test_monitor.one_class", "dataset.batch_size=20", "alpha=1"]
    found = experiment(tmp_path, store, *data)
    rows = [dict(zip(lines[0], line, strict=True)) for lines in [table(tmp_path)] for line in lines[1:]]
    lowest = min(rows, key=lambda row: float(row["val/nll"]))
    assert found["epochs"]["monitor"] == "val/nll"
    assert (found["epochs"]["best"], found["epochs"]["value"]) == (int(lowest["epoch"]), float(lowest["val/nll"]))


def test_the_best_epoch_of_a_rare_class_is_not_the_first_for_student_control_and_teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("KDEXP_TRUST", "test_monitor")
    store = tmp_path / "store"
    alone = experiment(tmp_path / "alone", store, *RARE, "optimizer.lr=0.001", "seed=1", "alpha=1")
    test = rare()
    student = Experiment(compose([*SMOKE, *RARE, "seed=1"], output_dir="x")).new_student(pretrained=None)
    student.load_state_dict(load_file(tmp_path / "alone" / "student.safetensors"))
    with torch.no_grad():
        auc = roc_auc_score(test.test_target, student(test.test_inputs).squeeze(1))
    assert auc == pytest.approx(alone["metrics"]["test"]["best"]["auc"], abs=2e-3)
    assert auc > alone["metrics"]["test"]["last"]["auc"] - 0.02
    assert alone["epochs"]["best"] > 0
    distilled = experiment(
        tmp_path / "distilled", store, *RARE, "optimizer.lr=0.01", "teacher.recipe.optimizer.lr=0.01"
    )
    assert distilled["teacher"]["test"]["auc"] > 0.6
    assert distilled["metrics"]["test"]["best"]["auc"] > 0.6


def test_the_old_rule_is_that_of_a_configuration_without_one_and_its_teacher_has_its_old_key(tmp_path, store):
    config = compose([*SMOKE], output_dir=tmp_path, store_dir=store)
    data = Experiment(config).data
    new = keys.teacher_key(config.teacher, config.dataset, config.task, data.content, quick.mark(config.quick))
    assert new["recipe"]["monitor"] == "val/acc"
    values = plain(config)
    del values["teacher"]["recipe"]["monitor"], values["trainer"]["monitor"]
    old = keys.teacher_key(
        OmegaConf.create(values).teacher, config.dataset, config.task, data.content, quick.mark(config.quick)
    )
    assert old == {**new, "recipe": {name: value for name, value in new["recipe"].items() if name != "monitor"}}
    one_epoch = compose([*SMOKE, "teacher.recipe.max_epochs=1"], output_dir=tmp_path, store_dir=store)
    assert (
        "monitor"
        not in keys.teacher_key(
            one_epoch.teacher, one_epoch.dataset, one_epoch.task, data.content, quick.mark(one_epoch.quick)
        )["recipe"]
    )


def test_a_robust_student_is_chosen_by_accuracy_under_attack_and_its_control_as_any(tmp_path):
    for alpha, wanted in (("0", "val/robust_acc"), ("1", "val/acc")):
        config = compose([*SMOKE, "scheme=rslad", f"alpha={alpha}"], output_dir=tmp_path)

        assert run_metadata(plain(config), [], {})["epochs"] == {"monitor": wanted}


@pytest.mark.parametrize(
    ("record", "value"),
    [
        ({"epochs": {"monitor": "val/nll", "value": 0.25}}, -0.25),
        ({"epochs": {"monitor": "val/auc", "value": 0.75}}, 0.75),
        ({"epochs": {"best": 1, "last": 2}, "metrics": {"val": {"best": {"acc": 0.5}}}}, 0.5),  # an older kdexp's
    ],
)
def test_a_sweeper_that_searches_is_given_the_metric_that_chose_and_more_is_better(record, value):
    assert job.value_of({"status": "completed", **record}) == value
    assert job.value_of({"status": "diverged", **record}) is None


@pytest.mark.parametrize(("chosen_by", "accuracy"), [("val/acc", 0.75), ("val/nll", 0.25), ("val/auc", None)])
def test_a_sweeps_progress_shows_the_accuracy_of_the_epoch_that_its_metric_would_choose(tmp_path, chosen_by, accuracy):
    (tmp_path / "metrics.csv").write_text("epoch,val/acc,val/nll\n0,0.5,0.4\n1,0.75,0.3\n2,0.25,0.2\n")
    assert sweep._progress(tmp_path / "metrics.csv", chosen_by, "val/acc") == (3, accuracy)
