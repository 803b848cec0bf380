"""Runs of segmentation, whole."""

import json
import re

import numpy as np
import own_data
import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.compose import compose
from kdexp.experiment import finished_run
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.run import run
from kdexp.experiment.trained_student import trained_student
from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.dice import dice
from kdexp.models import tiles
from kdexp.models.tiles import tiled
from kdexp.report import mask_examples
from kdexp.weights import state_digest

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
    assert (folder / "figures" / "masks.png").exists()


def test_a_run_keeps_a_few_images_with_the_masks_of_both_networks(distilled, store):
    folder, *_ = distilled
    experiment = Experiment(compose(SMOKE, output_dir=folder, store_dir=store), may_train_teacher=False)
    student = trained_student(experiment, folder / "student.safetensors", "run").eval()
    data, statistics = experiment.data.student.splits.test, experiment.config.dataset
    examples = mask_examples.read(folder, 3)
    assert len(examples) == 4
    for example in examples:
        image = data.inputs[example.sample]
        assert np.array_equal(example.image, image)
        assert np.array_equal(example.truth, data.target[example.sample])
        inputs = (image[None] / 255 - statistics.mean[0]) / statistics.std[0]
        with torch.no_grad():
            expected = {"teacher": experiment.teacher(inputs).logits, "student": student(inputs)}
        for name, logits in expected.items():
            assert (logits[0].argmax(0).numpy() == example.predictions[name]).mean() > 0.999  # of ties and rounding


@pytest.mark.slow
def test_a_sweep_ends_in_a_page_with_teacher_control_and_student_side_by_side(command, tmp_path):
    command("kdexp-train", "-m", "quick=true", *SMOKE, "alpha=1,0.5", "sweep_name=masks")
    (page,) = tmp_path.glob("multirun/*/report.html")
    (alternative,) = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,', page.read_text())
    assert alternative.startswith("Test images, a row each: image, truth, teacher, control, student. image ")


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


def entropy_and_dice_by_hand(logits, labels):
    entropy = torch.nn.functional.cross_entropy(logits, labels)
    p = logits.softmax(1)
    truth = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    overlap, total = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
    occurs = truth.sum((2, 3)) > 0
    losses = (1 - (2 * overlap + 1) / (total + 1)) * occurs
    return entropy + (losses.sum(1) / occurs.sum(1)).mean()


def entropy_and_dice(logits, labels):
    return cross_entropy(logits, labels, kind="multiclass") + dice(logits, labels, kind="multiclass")


def test_with_alpha_1_the_student_is_that_of_plain_training(tmp_path, store):
    """A plain loop on the same batches: to the bit with the same loss, within rounding with one by hand."""
    settings = ("alpha=1", "scheduler=constant", "trainer.channels_last=false")
    results, weights = trained(tmp_path / "run", store, *settings)
    for loss, tolerance in ((entropy_and_dice, 0.0), (entropy_and_dice_by_hand, 1e-5)):
        experiment = Experiment.compose(*SMOKE, *settings, output_dir=tmp_path, store_dir=store)
        student, given = experiment.student, experiment.config.optimizer
        optimizer = torch.optim.AdamW(student.parameters(), lr=given.lr, weight_decay=given.weight_decay, fused=True)
        seen = []
        for epoch in range(2):
            for batch in experiment.data.student.epochs("cpu")(epoch):
                optimizer.zero_grad()
                loss(student(batch.inputs), batch.target).backward()
                optimizer.step()
            seen.append({name: value.clone() for name, value in student.state_dict().items()})
        best = seen[results["epochs"]["best"]]
        torch.testing.assert_close(weights, best, atol=tolerance, rtol=10 * tolerance)


@pytest.mark.slow
def test_a_road_of_kitti_is_learned_from_by_the_experiment(tmp_path, store):
    own_data.kitti_road(tmp_path / "data_road")
    words = (
        "experiment=road", f"dataset.source.root={tmp_path / 'data_road'}", "dataset.source.preset=kitti_road",
        "dataset.input_shape=[3,32,32]", "dataset.num_workers=0", "teacher.name=lraspp_mobilenet_v3_large",
        "alpha=0.5", "quick=true", "tracking=none", "trainer.accelerator=cpu",
    )  # fmt: skip
    results = run(compose(words, output_dir=tmp_path / "run", store_dir=store))
    assert results["measure"] == "miou"
    assert results["config"]["dataset"]["classes"] == ["background", "road"]
    assert 0 <= results["metrics"]["test"]["best"]["miou"] <= 1


TILES = (*CROPS, "student.depth=1", "teacher.depth=1", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, store):
    return trained(tmp_path_factory.mktemp("whole") / "run", store, *TILES)


def test_tiles_that_overlap_enough_give_the_metrics_of_whole_images(whole, tmp_path, store, monkeypatch):
    seen = set()
    monkeypatch.setattr(tiles, "tiled", lambda of, images, *how: seen.add(images.shape[2:]) or tiled(of, images, *how))
    results, weights = trained(tmp_path / "run", store, *TILES, "task.tile=40", "task.tile_overlap=20")
    assert (64, 64) in seen
    assert same(weights, whole[1])
    for split in ("val", "test"):
        assert results["metrics"][split]["best"] == pytest.approx(
            whole[0]["metrics"][split]["best"], rel=1e-4, abs=1e-6
        )
        assert results["teacher"][split] == pytest.approx(whole[0]["teacher"][split], rel=1e-4, abs=1e-6)


def test_tiles_that_do_not_overlap_give_others_of_the_teacher_too(whole, tmp_path, store):
    results, _ = trained(tmp_path / "run", store, *TILES, "task.tile=40", "task.tile_overlap=0")
    for of, expected in ((results["metrics"]["test"]["best"], whole[0]["metrics"]["test"]["best"]),
                         (results["teacher"]["test"], whole[0]["teacher"]["test"])):  # fmt: skip
        assert of["nll"] != pytest.approx(expected["nll"], rel=1e-4)
    again = finished_run.run(compose([f"run={tmp_path}/run", "accelerator=cpu", f"store_dir={store}"], "eval"))
    assert again == pytest.approx(results["metrics"]["test"]["best"], rel=1e-5)


def test_cached_outputs_of_tiles_are_not_those_of_whole_images(tmp_path, store):
    found = []
    for tile in ("null", "40"):
        words = (*SMOKE, *CROPS, "teacher.cache=views:2", f"task.tile={tile}", "task.tile_overlap=0")
        experiment = Experiment.compose(*words, output_dir=tmp_path / "x", store_dir=store)
        found.append((state_digest(experiment.teacher.networks[0]), experiment.cache.splits["val"].folder))
    (weights, folder), (same_weights, other) = found
    assert same_weights == weights
    assert other != folder


def test_a_crop_that_is_larger_than_a_tile_is_refused(tmp_path, store):
    config = compose([*SMOKE, "task.tile=63", "task.tile_overlap=0"], output_dir=tmp_path / "run", store_dir=store)
    with pytest.raises(ValueError, match=r"^task.tile must be at least dataset.input_shape's \[64, 64\], got 63$"):
        run(config)


@pytest.mark.parametrize(("overrides", "message"), [
    (("augment=mixup",), "augment.transforms must move masks as they move images .*, got kdexp.data.augment.Mixup"),
    (("student=cnn_small",), r"student must give \(N, 3, 64, 64\) logits for dataset=shapes, got \(2, 3\); .*"),
    (("dataset.source.num_classes=2",), "dataset.source must have every class in some mask of .*, got no pixel of 2"),
    (("dataset.class_sampling=balanced",), "dataset.class_sampling must be null for targets that are not labels.*"),
    (("dataset.label_noise=0.2",), "dataset.label_noise must be 0 for targets that are not one label.*"),
    (("trainer.monitor=val/robust_acc",), "trainer.monitor must be one of .*"),
    (("trainer.monitor=val/sensitivity",), "trainer.monitor must be one of .*, got val/sensitivity"),
    (("scheme=pgd_at",), "scheme must attack nothing for task=segmentation, got kdexp.schemes.pgd_at.PGDTraining"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line_before_any_training(tmp_path, store, overrides, message, caplog):
    kept = [word for word in SMOKE if "student=cnn_small" not in overrides or not word.startswith("student.")]
    config = compose([*kept, *overrides], output_dir=tmp_path / "run", store_dir=store / "empty")
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(config)
    assert "epoch 1" not in caplog.text
