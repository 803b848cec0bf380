"""Runs of segmentation, whole."""

import json

import own_data
import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.compose import compose
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run

SMOKE = (
    "dataset=shapes", "student=mobilenet_unet", "teacher=unet", "student.width=4", "student.depth=2", "teacher.width=4",
    "teacher.depth=2", "teacher.recipe.max_epochs=1", "trainer.max_epochs=2", "trainer.accelerator=cpu",
    "tracking=none",
)  # fmt: skip


CROPS = (
    "augment=image_masks", "augment@teacher.recipe.augment=image_masks", "dataset.input_shape=[3,32,32]",
    "dataset.source.input_shape=[3,64,64]",
)  # fmt: skip


def trained(folder, store, *overrides):
    """The results of a run, and the weights of its student."""
    results = run(compose([*SMOKE, *overrides], output_dir=folder, store_dir=store))
    return results, load_file(folder / "student.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    return folder, *trained(folder, store)


def test_a_run_leaves_the_metrics_of_its_task(distilled):
    folder, results, _ = distilled
    assert json.loads((folder / "results.json").read_text())["measure"] == "miou"
    test = results["metrics"]["test"]["best"]
    assert {"miou", "dice", "image_dice", "acc", "precision", "recall", "f1", "auc", "nll", "ece", "agreement"} <= set(
        test
    )
    assert results["epochs"]["monitor"] == "val/miou"
    assert results["metrics"]["val"]["best"]["miou"] == results["epochs"]["value"]
    assert sum(map(sum, results["curves"]["confusion"])) == 32 * 64 * 64  # pixels of test
    assert (folder / "figures" / "confusion.png").exists()


def test_cached_views_of_crops_give_the_same_student_to_the_bit(tmp_path, store):
    _, plain = trained(tmp_path / "plain", store, *CROPS, "augment.views=2", "augment.seed=0")
    _, cached = trained(tmp_path / "cached", store, *CROPS, "teacher.cache=views:2", "teacher.cache_precision=fp32")
    assert same(plain, cached)


def test_cached_outputs_of_crops_are_known_by_the_masks_that_the_crops_lie_around(tmp_path, store):
    words = (*SMOKE, *CROPS, "teacher.cache=views:2")
    folders = []
    for hidden in (0.0, 0.5):
        experiment = Experiment.compose(
            *words, f"dataset.unlabeled_fraction={hidden}", output_dir=tmp_path / "x", store_dir=store
        )
        folders.append({name: outputs.folder for name, outputs in experiment.cache.splits.items()})
    assert folders[0]["train"] != folders[1]["train"]
    assert folders[0]["val"] == folders[1]["val"]


def test_a_folder_of_ones_own_is_learned_from_in_crops_and_tested_whole(tmp_path, store):
    own = own_data.image_masks(tmp_path)
    data = ("dataset=image_masks", "dataset.input_shape=[3,8,8]", "dataset.drop_last=false", "dataset.num_workers=0")
    kept = [word for word in SMOKE if not word.startswith("dataset=")]
    results = run(compose([*kept, *data, *own], output_dir=tmp_path / "run", store_dir=store))
    assert results["measure"] == "miou"
    assert sum(map(sum, results["curves"]["confusion"])) == results["samples"]["test"] * 8 * 12


@pytest.mark.parametrize("metric", ["auc", "dice"])
def test_any_metric_of_the_task_can_choose(tmp_path, store, metric):
    results, _ = trained(tmp_path / "run", store, "alpha=1", "trainer.max_epochs=1", f"trainer.monitor=val/{metric}")
    assert results["epochs"]["value"] == results["metrics"]["val"]["best"][metric]


def test_with_alpha_1_the_student_is_that_of_plain_training(tmp_path, store):
    """A loop in plain PyTorch, with the same batches, is the oracle."""
    results, weights = trained(tmp_path / "run", store, "alpha=1", "scheduler=constant", "trainer.channels_last=false")
    experiment = Experiment.compose(
        *SMOKE, "alpha=1", "scheduler=constant", "trainer.channels_last=false", output_dir=tmp_path, store_dir=store
    )
    student, settings = experiment.student, experiment.config.optimizer
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    seen = []
    torch.manual_seed(0)
    for epoch in range(2):
        for batch in experiment.data.student.epochs("cpu")(epoch):
            logits = student(batch.inputs)
            labels = batch.target
            entropy = torch.nn.functional.cross_entropy(logits, labels)
            p = logits.softmax(1)
            truth = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
            overlap, total = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
            occurs = truth.sum((2, 3)) > 0
            losses = (1 - (2 * overlap + 1) / (total + 1)) * occurs
            dice = (losses.sum(1) / occurs.sum(1)).mean()
            optimizer.zero_grad()
            (entropy + dice).backward()
            optimizer.step()
        seen.append({name: value.clone() for name, value in student.state_dict().items()})
    torch.testing.assert_close(weights, seen[results["epochs"]["best"]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("overrides", "message"), [
    (("augment=mixup",), "augment.transforms must move masks as they move images .*, got kdexp.data.augment.Mixup"),
    (("student=cnn_small",), r"student must give \(N, 3, 64, 64\) logits for dataset=shapes, got \(2, 3\)"),
    (("dataset.source.num_classes=2",), "dataset.source must have every class in some mask of .*, got no pixel of 2"),
    (("dataset.class_sampling=balanced",), "dataset.class_sampling must be null for targets that are not labels.*"),
    (("dataset.label_noise=0.2",), "dataset.label_noise must be 0 for targets that are not one label.*"),
    (("trainer.monitor=val/robust_acc",), "trainer.monitor must be one of .*"),
    (("scheme=pgd_at",), "scheme must attack nothing for task=segmentation, got kdexp.schemes.pgd_at.PGDTraining"),
    (("robustness=attacks",), "robustness must be null for task=segmentation, got attacks"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line_before_any_training(tmp_path, store, overrides, message, caplog):
    kept = [word for word in SMOKE if "student=cnn_small" not in overrides or not word.startswith("student.")]
    config = compose([*kept, *overrides], output_dir=tmp_path / "run", store_dir=store / "empty")
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(config)
    assert "epoch 1" not in caplog.text
