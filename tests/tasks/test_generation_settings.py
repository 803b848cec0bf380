"""What a configuration of a VAE refuses before anything is loaded."""

import pytest
import torch

from kdexp.config.compose import compose
from kdexp.contracts import Source
from kdexp.experiment.check import check
from kdexp.tasks.generation import Generation

VAE = ["dataset=mnist", "task=generation"]


@pytest.mark.parametrize(("overrides", "message"), [
    ([*VAE, "temperature=4"], "temperature must be 1 for task=generation, got 4.0"),
    ([*VAE, "loss=kd"], "loss must compare distributions for task=generation, got kdexp.losses.kd.KD"),
    (["dataset=mnist", "loss=vae"],
     "loss must compare rows for task=classification, got kdexp.losses.vae.VAEDistillation"),
    ([*VAE, "augment=shift"], "augment.transforms must be none, where the images are the targets, with dataset=mnist, "
     "got kdexp.data.augment.RandomCrop"),
    ([*VAE, "augment@teacher.recipe.augment=shift"], "teacher.recipe.augment.transforms must be none, .*"),
    ([*VAE, "label_smoothing=0.1"], "label_smoothing must be 0 for task=generation, got 0.1"),
    ([*VAE, "scheme=mutual"], "scheme must be null for task=generation, got kdexp.schemes.mutual.Mutual"),
    ([*VAE, "scheme=ard"], "scheme must attack nothing for task=generation, got kdexp.schemes.ard.ARD"),
    ([*VAE, "teacher.cache_top_k=5"], "teacher.cache_top_k must be null for task=generation, got 5"),
    ([*VAE, "trainer.monitor=val/acc"], "trainer.monitor must be a metric of generation, got val/acc"),
    (["dataset=mnist", "trainer.monitor=val/neg_elbo"],
     "trainer.monitor must be a metric of classification, got val/neg_elbo"),
    ([*VAE, "task.latent=0"], "task.latent must be a whole number of at least 1, got 0"),
    ([*VAE, "task.sigma=0"], "task.sigma must be null or > 0, got 0"),
    ([*VAE, "task.beta=-1"], "task.beta must be >= 0, got -1"),
    ([*VAE, "task.binarize=true"], "task.binarize must be null or a whole number, a seed, got True"),
    ([*VAE, "task.importance_samples=-1"], "task.importance_samples must be a whole number of at least 0, got -1"),
])  # fmt: skip
def test_what_does_not_fit_a_vae_is_refused_in_one_line(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check(compose(overrides, output_dir=tmp_path))


def test_the_task_brings_its_networks_its_loss_and_no_augmentation(tmp_path):
    config = compose(VAE, output_dir=tmp_path)
    check(config)
    assert config.student._target_ == config.teacher._target_ == "kdexp.models.vae.vae_mlp"
    assert config.loss._target_ == "kdexp.losses.vae.VAEDistillation"
    assert (config.alpha, config.temperature) == (0.5, 1.0)
    assert not config.augment.transforms
    assert compose([*VAE, "student=vae_conv", "teacher=vae_conv"], output_dir=tmp_path).student.width == 16


@pytest.mark.parametrize("settings", [{}, {"binarize": 0}, {"binarize": 0, "sigma": 0.1}])
def test_images_outside_0_1_are_refused_where_pixels_are_probabilities(settings):
    images, labels = torch.linspace(0, 16, 64).view(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    task, source = Generation(num_outputs=2, **settings), Source(images, labels, images, labels)
    rule = r"dataset.source must give images in \[0, 1\] in train for a Bernoulli decoder \(task.sigma=null\) .*"
    with pytest.raises(ValueError, match=f"^{rule}, got 0 to 16$"):
        task.check_source(task.own_targets(source), "multiclass", 2, [1, 8, 8])
    inside = Source(images / 16, labels, images / 16, labels)
    task.check_source(task.own_targets(inside), "multiclass", 2, [1, 8, 8])
