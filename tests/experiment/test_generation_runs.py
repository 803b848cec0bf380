"""Runs of a VAE, whole."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.compose import compose, plain
from kdexp.experiment.changes import what_changed
from kdexp.experiment.run import run
from kdexp.report import image_examples
from kdexp.training.distiller import Distiller

SMOKE = (
    "dataset=digits", "task=generation", "student.hidden=[8]", "teacher.hidden=[16]", "task.latent=3",
    "teacher.recipe.max_epochs=2", "trainer.max_epochs=2", "trainer.accelerator=cpu", "tracking=none",
)  # fmt: skip


def trained(folder, store, *overrides):
    """The results of a run, and the weights of its student."""
    results = run(compose([*SMOKE, *overrides], output_dir=folder, store_dir=store))
    return results, load_file(folder / "student.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("vae") / "run"
    return folder, *trained(folder, store, "task.importance_samples=3")


def test_a_run_is_chosen_by_the_least_negative_elbo_and_leaves_the_metrics_of_its_task(distilled):
    folder, results, _ = distilled
    assert json.loads((folder / "results.json").read_text())["measure"] == "elbo"
    test, val = (results["metrics"][split]["best"] for split in ("test", "val"))
    assert {"rate", "distortion", "active_units", "psnr", "posterior_kl_to_teacher", "iw_elbo"} <= set(test)
    assert test["elbo"] == -(test["rate"] + test["distortion"])
    assert test["iw_elbo"] > test["elbo"]
    assert results["teacher"]["test"]["iw_elbo"] > results["teacher"]["test"]["elbo"]
    assert results["epochs"]["monitor"] == "val/neg_elbo"
    assert results["epochs"]["value"] == val["neg_elbo"] <= results["metrics"]["val"]["last"]["neg_elbo"]
    assert results["epochs"]["best"] == 1
    assert "curves" not in results


def test_a_run_keeps_test_images_with_what_both_networks_make_of_them(distilled):
    folder, *_ = distilled
    examples = image_examples.read(folder)
    assert list(examples.rebuilt) == list(examples.sampled) == ["teacher", "student"]
    assert examples.images.shape == (8, 1, 8, 8)
    assert not np.array_equal(examples.rebuilt["teacher"], examples.rebuilt["student"])
    assert (folder / "figures" / "images.png").exists()


def test_a_completed_run_of_the_same_data_is_known_again(distilled, store, caplog):
    folder, results, _ = distilled
    again, _ = trained(folder, store, "task.importance_samples=3")
    assert again["wandb_id"] == results["wandb_id"]
    values = plain(compose([*SMOKE, "task.binarize=1"], output_dir=folder, store_dir=store))
    assert what_changed(again, plain(compose(SMOKE, output_dir=folder, store_dir=store))) == ""
    assert what_changed(again, values) == "its data have changed since"


def test_cached_outputs_give_the_same_student_to_the_bit(distilled, tmp_path, store):
    cached, weights = trained(tmp_path, store, "teacher.cache=unaugmented", "teacher.cache_precision=fp32")
    assert same(weights, distilled[2])
    assert cached["metrics"]["val"] == distilled[1]["metrics"]["val"]


def test_an_interrupted_run_is_resumed_to_the_same_bits(distilled, tmp_path, store, monkeypatch):
    begin = Distiller.on_train_epoch_start

    def stop(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "on_train_epoch_start", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(compose(SMOKE, output_dir=tmp_path / "run", store_dir=store))
    run(compose([f"resume={tmp_path}/run"], output_dir=tmp_path / "run", store_dir=store))
    assert same(load_file(tmp_path / "run" / "student.safetensors"), distilled[2])


def test_a_control_is_the_same_whatever_the_loss(tmp_path, store):
    one, weights = trained(tmp_path / "one", store, "alpha=1")
    other, others = trained(tmp_path / "other", store, "alpha=1", "loss.posterior=2")
    assert same(weights, others)
    assert one["fingerprint"] == other["fingerprint"]
    assert "teacher" not in one


@pytest.mark.parametrize("words", [
    ("task.sigma=0.3", "task.beta=0.5", "student=vae_conv", "teacher=vae_conv"), ("task.binarize=0",),
    ("feature_loss=pkt", "alpha=0.9"), ("feature_loss=fitnet",),
])  # fmt: skip
def test_other_vaes_are_trained(tmp_path, store, words):
    kept = [word for word in SMOKE if "student=vae_conv" not in words or ".hidden" not in word]
    results = run(compose([*kept, *words, "trainer.max_epochs=1"], output_dir=tmp_path, store_dir=store))
    assert np.isfinite(results["metrics"]["test"]["best"]["elbo"])
    assert results["teacher"]["test"]["psnr"] > 5


@pytest.mark.slow
def test_a_sweep_ends_in_a_page_in_nats_with_the_images_of_all_three(command, tmp_path):
    done = command("kdexp-train", "-m", *SMOKE, "alpha=1,0.5", "seed=0,1,2", "sweep_name=vae")
    assert "nats of test ELBO" in done.stdout
    assert "%" not in done.stdout.split("ELBO in nats", 1)[1].split("Chosen by")[0].replace("95 %", "")
    text = (tmp_path / "multirun" / "vae" / "report.html").read_text()
    (alternative,) = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,', text)
    assert alternative.startswith("A row each: test images, teacher, reconstructed, control, reconstructed, student,")
    assert "nats on test" in text
    assert (tmp_path / "multirun" / "vae" / "images.png").is_file()


@pytest.mark.parametrize(("overrides", "message"), [
    (("robustness=quick",), "robustness must be null for task=generation, got .*"),
    (("dataset.label_noise=0.2",), "dataset.label_noise must be 0 for targets that are not one label.*"),
    (("dataset.unlabeled_fraction=0.2",), "dataset.unlabeled_fraction must be 0 for targets that are no labels.*"),
    (("dataset.class_sampling=balanced",), "dataset.class_sampling must be null for targets that are not labels.*"),
    (("student=mlp",), r"student must give \(N, 73\) logits for dataset=digits, got \(2, 10\); .* vae_mlp, vae_conv"),
    (("teacher.latent=4",), r"teacher must give \(N, 73\) logits for dataset=digits, got \(2, 76\); .*"),
    (("dataset=breast_cancer",), r"dataset.source must give images \(N, C, H, W\) in memory for task=generation, .*"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line_before_any_training(tmp_path, store, overrides, message, caplog):
    replaced = {word.partition("=")[0] for word in overrides}
    kept = [word for word in SMOKE if word.partition("=")[0] not in replaced]
    kept = [word for word in kept if "student=mlp" not in overrides or not word.startswith("student.")]
    config = compose([*kept, *overrides], output_dir=tmp_path / "run", store_dir=store / "empty")
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(config)
    assert "epoch 1" not in caplog.text
