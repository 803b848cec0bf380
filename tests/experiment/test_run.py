"""`kdexp.experiment.run.run` in this process: what a run computes and leaves behind."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from kdexp import results
from kdexp.config.compose import compose
from kdexp.experiment import student_evaluation
from kdexp.experiment.run import run
from kdexp.metrics.evaluate import evaluate
from kdexp.training.settings import MANY_RANKS

SMOKE = ["experiment=smoke", "tracking=none"]


def experiment(folder, store, *overrides):
    return run(compose([*SMOKE, *overrides], output_dir=folder, store_dir=store))


def weights(folder):
    return load_file(folder / "student.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("smoke")
    return folder, experiment(folder, store)


def test_a_run_leaves_everything_the_design_names(smoke):
    folder, _ = smoke
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "results.json", "metrics.csv", "student.safetensors", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "figures/roc.png", "figures/confusion.png", "figures/training.png",
    } <= left  # fmt: skip
    assert not {"examples.npz", "figures/masks.png"} & left  # of classification


def test_results_json_says_what_was_run_how_it_ended_and_what_came_out(smoke):
    folder, returned = smoke
    stored = json.loads((folder / "results.json").read_text())
    assert stored["status"] == "completed"
    assert stored["metrics"] == returned["metrics"]
    names = {"acc", "acc_top5", "precision", "recall", "f1", "auc", "nll", "ece", "agreement", "kl_to_teacher"}
    names |= {"brier", "aurc", "augrc", "failure_auroc", "coverage_at_5", "worst_class"}
    for split in ("val", "test"):
        for which in ("best", "last"):
            assert names <= set(stored["metrics"][split][which])
        assert names - {"agreement", "kl_to_teacher"} <= set(stored["teacher"][split])
    assert stored["samples"]["test"] == 256
    assert stored["samples"]["train"] + stored["samples"]["val"] == 512
    for of, measured in ((stored, stored["metrics"]["test"]["best"]), (stored["teacher"], stored["teacher"]["test"])):
        confusion = np.array(of["curves"]["confusion"])
        assert confusion.sum() == stored["samples"]["test"]
        assert confusion.trace() / confusion.sum() == pytest.approx(measured["acc"])
        assert of["curves"]["auc"]["macro"] == pytest.approx(measured["auc"])
        assert of["model"]["macs"] > of["model"]["parameters"] > 0
    assert {"data", "teacher", "fit", "evaluation", "total"} <= set(stored["cost"]["seconds"])
    assert stored["model"]["parameters"] == sum(
        tensor.numel() for name, tensor in weights(folder).items() if "running" not in name and "tracked" not in name
    )
    assert stored["model"]["bytes"] == (folder / "student.safetensors").stat().st_size
    assert stored["choices"]["student"] == "cnn_small"
    assert {"python", "torch", "kdexp"} <= set(stored["versions"])


def test_metrics_csv_has_a_row_an_epoch_with_every_part_of_the_loss(smoke):
    folder, _ = smoke
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name in ("train/loss", "train/loss_hard", "train/loss_soft", "train/acc", "val/loss", "val/acc", "val/auc"):
        assert all(float(row[name]) >= 0 for row in rows)


def test_checkpoints_hold_the_student_alone_and_are_plain(smoke):
    folder, _ = smoke
    for name in ("best", "last"):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert all(key.startswith("student.") for key in checkpoint["state_dict"])


def test_the_exported_student_is_the_best_epoch_by_validation_accuracy(smoke):
    folder, result = smoke
    with (folder / "metrics.csv").open() as file:
        accuracy = [float(row["val/acc"]) for row in csv.DictReader(file)]
    assert result["epochs"]["best"] == accuracy.index(max(accuracy))
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == result["epochs"]["best"]
    assert equal({k.removeprefix("student."): v for k, v in best["state_dict"].items()}, weights(folder))
    assert result["metrics"]["val"]["best"]["acc"] == pytest.approx(max(accuracy), abs=1e-6)


def test_the_same_experiment_gives_the_same_weights_and_another_seed_others(smoke, tmp_path, store):
    folder, _ = smoke
    experiment(tmp_path / "again", store)
    experiment(tmp_path / "other", store, "seed=1")
    assert equal(weights(folder), weights(tmp_path / "again"))
    assert not equal(weights(folder), weights(tmp_path / "other"))


def test_a_control_builds_no_teacher(tmp_path):
    nowhere = tmp_path / "store"
    result = experiment(tmp_path / "run", nowhere, "alpha=1")
    assert result["is_control"]
    assert "teacher" not in result
    assert not nowhere.exists()


def test_labels_that_count_for_nothing_change_nothing(tmp_path, store):
    for name, noise in (("clean", 0.0), ("noisy", 0.5), ("hidden", 0.0)):
        hidden = 1.0 if name == "hidden" else 0.0
        experiment(
            tmp_path / name, store, "alpha=0", f"dataset.label_noise={noise}", f"dataset.unlabeled_fraction={hidden}"
        )
    reference = last(tmp_path / "clean")["state_dict"]
    assert equal(reference, last(tmp_path / "noisy")["state_dict"])
    assert equal(reference, last(tmp_path / "hidden")["state_dict"])


def test_the_teacher_is_trained_once_and_its_settings_alone_decide(tmp_path):
    store = tmp_path / "store"

    def teachers():
        return len(list((store / "teachers").iterdir()))

    experiment(tmp_path / "a", store)
    assert teachers() == 1
    card = next((store / "teachers").glob("*/teacher.json")).stat().st_mtime_ns
    experiment(tmp_path / "b", store, "seed=5", "temperature=2", "student.width=2", "optimizer.lr=0.1")
    assert teachers() == 1
    assert next((store / "teachers").glob("*/teacher.json")).stat().st_mtime_ns == card
    experiment(tmp_path / "c", store, "teacher.recipe.max_epochs=1")
    assert teachers() == 2
    experiment(tmp_path / "d", store, "dataset.source.noise=2.0")
    assert teachers() == 3


def test_a_finished_student_can_be_the_teacher_of_the_next(smoke, tmp_path, store):
    folder, first = smoke
    result = experiment(
        tmp_path, store, "teacher=cnn_small", f"teacher.weights={folder}/student.safetensors", "student.width=2"
    )
    assert result["teacher"]["test"]["acc"] == pytest.approx(first["metrics"]["test"]["best"]["acc"], abs=1e-6)


def test_a_teacher_near_chance_is_pointed_out(tmp_path, store, caplog):
    experiment(tmp_path, store, "teacher.recipe.optimizer.lr=0.0", "dataset.source.noise=1.5")
    assert any("the teacher is near chance" in message for message in caplog.messages)


def test_a_teacher_that_brings_its_own_weights_is_used_as_it_is(tmp_path, store):
    result = experiment(tmp_path, tmp_path / "store", "teacher.weights=built")
    assert result["teacher"]["test"]["acc"] < 0.5  # initial ones, here
    assert not (tmp_path / "store" / "teachers").exists()


def test_several_teachers_distill(tmp_path, store):
    small = [f"teacher.members.{name}.recipe.max_epochs=1" for name in "abc"]
    result = experiment(
        tmp_path, store, "teacher=ensemble", *(f"teacher@teacher.members.{name}=mlp" for name in "abc"), *small
    )
    assert result["status"] == "completed"
    assert 0 <= result["metrics"]["test"]["best"]["agreement"] <= 1


def test_a_teacher_that_cannot_be_read_is_refused_before_another_one_is_trained(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((1797, 10), np.nan, np.float32))
    members = ["teacher@teacher.members.b=outputs", f"teacher.members.b.file={tmp_path}/nan.npy", "augment=none"]
    with pytest.raises(ValueError, match=r"^teacher.members.b"):
        experiment(tmp_path, tmp_path / "store", "teacher=ensemble", *members, "teacher.cache=unaugmented")
    assert not (tmp_path / "store" / "teachers").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.kind=binary", "dataset.num_classes=2"],
        ["dataset.kind=multilabel"],
        ["augment=mixup"],
        ["augment=mixup", "dataset.unlabeled_fraction=0.5"],
        ["augment=crop_flip_cutmix"],
        ["augment=crop_flip_randaugment", "robustness=conformal"],
        ["dataset.unlabeled_fraction=0.9"],
        ["dataset.train_fraction=0.5", "dataset.label_noise=0.2", "dataset.label_noise_kind=pairflip"],
        ["trainer.gradient_clip_val=0.1", "trainer.accumulate_grad_batches=2"],
        ["trainer.full_train_metrics=true", "dataset.drop_last=false", "dataset.batch_size=100"],
        ["scheduler=multistep", "optimizer=sgd", "label_smoothing=0.1"],
        ["distillation=teacher_first", "trainer.max_steps=20"],
        ["distillation=cooling"],
        ["loss.scale_by_temperature=false"],
    ],
    ids=" ".join,
)
def test_every_way_to_train_ends_in_complete_results(tmp_path, store, overrides):
    result = experiment(tmp_path, store, *overrides)
    assert result["status"] == "completed"
    assert 0 <= result["metrics"]["test"]["best"]["acc"] <= 1
    assert 0 <= result["metrics"]["test"]["last"]["auc"] <= 1


@pytest.mark.parametrize("epochs", [1, 2])
def test_an_epoch_that_is_the_best_and_the_last_is_evaluated_once(tmp_path, store, monkeypatch, epochs):
    said = []
    monkeypatch.setattr(student_evaluation, "evaluate", lambda *a, **k: said.append(k["what"]) or evaluate(*a, **k))
    # With this rate the first of two epochs is the best one.
    result = experiment(tmp_path, store, f"trainer.max_epochs={epochs}", "optimizer.lr=0.00001", "scheduler=constant")
    is_last = result["epochs"]["best"] == result["epochs"]["last"]
    assert is_last == (epochs == 1)
    which = ["best"] if is_last else ["last", "best"]
    assert said == [f"student: evaluating the {name} epoch on {split}" for name in which for split in ("val", "test")]
    for metrics in result["metrics"].values():
        assert (metrics["last"] == metrics["best"]) == is_last


def test_accumulated_batches_learn_what_one_large_batch_does(tmp_path, store):
    """Also with unlabeled samples, of which each batch has another number. (The mlp has no statistics of a batch.)"""
    settings = (
        "student=mlp",
        "dataset.unlabeled_fraction=0.5",
        "trainer.max_epochs=1",
        "alpha=0.5",
        "optimizer=sgd",
        "dataset.source.train_samples=320",
    )  # 288 of them are trained on, nine steps of 32
    for name, size, batches in (("large", 32, 1), ("accumulated", 8, 4)):
        words = (f"dataset.batch_size={size}", f"trainer.accumulate_grad_batches={batches}")
        experiment(tmp_path / name, store, *settings, *words)
    torch.testing.assert_close(weights(tmp_path / "accumulated"), weights(tmp_path / "large"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=fashion_mnist", "teacher=cnn", "student=mlp"],
        ["dataset=cifar100", "teacher=cnn_small", "student=mlp"],
        [
            "dataset=pneumonia_mnist",
            "teacher=cnn",
            "student=cnn_small",
            "dataset.train_fraction=1",
            "teacher.recipe.train_fraction=1",
        ],
        ["experiment=article"],
    ],
    ids=" ".join,
)
def test_real_data_are_learned_from(tmp_path, store, real_data, overrides):
    data_dir = real_data(compose(overrides, output_dir=tmp_path).dataset.name)
    small = ["trainer.max_epochs=1", "teacher.recipe.max_epochs=1", "trainer.accelerator=cpu", "tracking=none"]
    small += ["dataset.train_fraction=0.1", "teacher.recipe.train_fraction=0.1"]
    result = run(compose([*small, *overrides], output_dir=tmp_path, store_dir=store, data_dir=data_dir))
    chance = 1 / result["config"]["dataset"]["num_classes"]
    assert result["metrics"]["test"]["last"]["auc"] > 0.55
    assert result["metrics"]["test"]["last"]["acc"] > chance


def test_a_loss_that_is_not_finite_is_a_diverged_run_with_its_last_good_checkpoint(tmp_path, store):
    with pytest.raises(RuntimeError, match="loss became NaN or Inf at step"):
        experiment(tmp_path, store, "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "trainer.max_epochs=4")
    stored = results.read(tmp_path, "run")
    assert stored["status"] == "diverged"
    assert stored["error"].startswith("Diverged: student: the ")


def test_running_out_of_memory_is_said(tmp_path, store):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        experiment(tmp_path, store, "student=mlp", "student.hidden=[1000000000000]")
    assert results.read(tmp_path, "run")["status"] == "oom"


def test_last_is_the_last_epoch_also_when_it_is_not_the_best(tmp_path, store):
    result = experiment(tmp_path, store, "trainer.max_epochs=40", "optimizer.lr=0.01", "dataset.source.noise=3")
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert result["epochs"]["last"] == last(tmp_path)["epoch"] == 39
    assert result["epochs"]["best"] == best["epoch"] < 39
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for which, row in (("best", rows[best["epoch"]]), ("last", rows[-1])):
        assert result["metrics"]["val"][which]["nll"] == pytest.approx(float(row["val/nll"]), rel=1e-5)


def test_a_run_that_was_moved_and_cut_off_after_its_training_is_only_evaluated(smoke, tmp_path, store):
    folder, first = smoke
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    results.write(moved, results.read(moved, "run") | {"status": "running"})
    again = run(compose(SMOKE, output_dir=moved, store_dir=store, resume=moved))
    assert again["metrics"] == first["metrics"]
    assert again["epochs"] == first["epochs"]
    assert (moved / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()


def test_a_completed_run_is_not_run_again(smoke, store):
    folder, first = smoke
    before = (folder / "results.json").read_text()
    again = run(compose([*SMOKE], output_dir=folder, store_dir=store, resume=folder))
    assert again["metrics"] == first["metrics"]
    assert (folder / "results.json").read_text() == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.batch_size=100000"], r"^dataset.batch_size must be .*100000$"),
        (["dataset.val_fraction=0.0001"], r"^dataset.val_fraction .*0.0001$"),
        (["dataset.val_fraction=1"], r"^dataset.val_fraction .*1.0$"),
        (["dataset.train_fraction=0.001"], r"^dataset.train_fraction .*0.001$"),
        (["dataset.label_noise=1.5"], r"^dataset.label_noise .*1.5$"),
        (["dataset.label_noise_kind=odd"], r"^dataset.label_noise_kind .*odd$"),
        (["dataset.unlabeled_fraction=-1"], r"^dataset.unlabeled_fraction .*-1.0$"),
        (["+loss.tempratur=4"], r"^kdexp.losses.kd.KD: .*tempratur"),
        (["loss=kd_ls", "dataset.num_classes=2"], r"^logit standardisation needs at least 3 classes, got 2$"),
        (["optimizer.lr=-1"], r"^optimizer.lr must be a number >= 0, got -1$"),
        (["scheduler=multistep", "scheduler.gamma=abc"], r"^scheduler.gamma must be a number, got abc$"),
        (["teacher.recipe.optimizer.lr=-1"], r"^teacher.recipe.optimizer.lr must be a number >= 0, got -1$"),
        (["teacher.weights=nowhere.pt"], r"^teacher.weights must be an existing file, got nowhere.pt$"),
        (
            ["student=resnet20", "dataset.input_shape=[30]", "dataset.mean=[0]"],
            r"^student: resnet20 takes images.*got \[30\]; for task=classification there is mlp$",
        ),
        (["dataset=cifar10", "data_dir=/nowhere"], r"^data_dir has no CIFAR10.*/nowhere.*download=true$"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_data_and_weights_cannot_bear_is_said_before_training(tmp_path, store, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        run(compose(["experiment=smoke", "tracking=none", *overrides], output_dir=tmp_path, store_dir=store))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


def test_what_lies_beside_a_run_does_not_end_it(tmp_path, store):
    for name, content in {"a": "[" * 100_000, "b": "\0"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(content)
    control = experiment(tmp_path / "control", store, "alpha=1")
    saved = json.loads((tmp_path / "control" / "results.json").read_text())
    saved["metrics"]["test"]["best"] |= {"of_another_version": 0.5, "auc": None}
    results.write(tmp_path / "control", saved)
    (tmp_path / "control" / "student.safetensors").write_text("cut short")
    found = experiment(tmp_path / "run", store, "tracking=csv", "robustness=calibration")
    assert control["status"] == found["status"] == "completed"
    report = json.loads((tmp_path / "run" / "robustness.json").read_text())
    assert any("the control in" in note and "cannot be read" in note for note in report["notes"])


def test_a_run_folder_must_hold_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"^resume must be the folder of a run \(with results.json in it\), got "):
        run(OmegaConf.merge(compose(SMOKE, output_dir=tmp_path), {"resume": str(tmp_path)}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["dataset.train_fraction=0.03", "dataset.batch_size=16", "teacher.recipe.train_fraction=0.03"],
            r"^teacher.recipe.batch_size must be at most the 39 training samples with dataset.drop_last=true, got 64$",
        ),
        (["teacher.recipe.train_fraction=0.001"], r"^teacher.recipe.train_fraction must leave samples .*, got 0.001$"),
        (["teacher.mean=[0,0]"], r"^teacher.mean must have 1 value .*, got 2$"),
        (
            ["teacher=ensemble", "teacher.members.c.recipe.batch_size=5000"],
            r"^teacher.members.c.recipe.batch_size must be at most the .*, got 5000$",
        ),
        (["dataset.batch_size=1", "student=mobilenetv2_half"], r"^dataset.batch_size must leave at least 2 .*, got 1$"),
        (
            [
                "dataset.batch_size=38",
                "dataset.train_fraction=0.03",
                "dataset.drop_last=false",
                "trainer.devices=20",
                "student=mobilenetv2_half",
            ],
            r"^dataset.batch_size must leave at least 2 samples in each batch .* batch normalisation, got 38$",
        ),
        (
            ["teacher=mobilenetv2_half", "teacher.recipe.batch_size=1"],
            r"^teacher.recipe.batch_size must leave at least 2 samples in each batch .* batch normalisation, got 1$",
        ),
        (["scheduler.warmup_ratio=2"], r"^scheduler.warmup_ratio must be in \[0, 1\), got 2$"),
        (
            ["teacher.recipe.scheduler.warmup_ratio=2"],
            r"^teacher.recipe.scheduler.warmup_ratio must be in \[0, 1\), got 2$",
        ),
        (["trainer.strategy=dpp"], r"^trainer.strategy must be auto .*, got dpp; did you mean ddp\?$"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_the_data_is_said_before_a_teacher_is_trained(tmp_path, monkeypatch, overrides, message):
    monkeypatch.setenv(MANY_RANKS, "1")
    with pytest.raises(ValueError, match=message):
        experiment(tmp_path / "run", tmp_path / "store", "dataset=digits", "trainer.max_epochs=1", *overrides)
    assert not (tmp_path / "store" / "teachers").exists()


def test_batches_of_one_sample_are_no_fault_of_a_network_without_batch_normalisation(tmp_path, store):
    small = ["dataset=digits", "dataset.train_fraction=0.01", "dataset.batch_size=1", "trainer.max_epochs=1"]
    assert experiment(tmp_path, store, *small)["status"] == "completed"
