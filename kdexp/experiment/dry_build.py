"""What can be built before anything is trained, built once to find what is wrong."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.strategies import StrategyRegistry
from torch import nn

from kdexp.config.objects import instantiate
from kdexp.config.suggest import did_you_mean
from kdexp.experiment.data import Data
from kdexp.experiment.distillers import ADVERSARIAL, adversarial
from kdexp.experiment.keys import is_to_be_trained
from kdexp.experiment.losses import feature_losses, term
from kdexp.experiment.members import has_soft_term, teachers
from kdexp.experiment.networks import build_network, build_peers, build_student, peer_settings, the_teacher


def dry_build(config: Any) -> None:
    """Build once what can be built without data, so that a wrong setting is found before a teacher is trained.

    Raises:
        ValueError: a setting that its constructor refuses.
    """
    if config.trainer.accelerator == "gpu" and not torch.accelerator.is_available():
        raise ValueError("trainer.accelerator must be auto or cpu on a machine without a GPU, got gpu")
    strategies = ("auto", *StrategyRegistry.available_strategies())
    if config.trainer.strategy not in strategies:
        raise ValueError(
            f"trainer.strategy must be auto or a name that Lightning knows, got {config.trainer.strategy}"
            f"{did_you_mean(config.trainer.strategy, strategies)}"
        )
    learner = build_student(config)
    _rehearse_recipe(config, "")
    if config.scheme.get("name") in ADVERSARIAL:
        adversarial(config.scheme, config.dataset, "scheme")
    if has_soft_term(config):
        _rehearse_loss(term(config.loss).loss, config.dataset)
    for setting, member in teachers(config).items():
        if member.weights == "auto":
            _rehearse_recipe(member.recipe, f"{setting}.recipe.")
            if member.recipe.get("scheme"):
                adversarial(member.recipe.scheme, config.dataset, f"{setting}.recipe.scheme")
    if config.feature_loss:
        setting, member = the_teacher(config)
        feature_losses(
            config, learner, build_network(member, setting, config.dataset), torch.zeros(2, dtype=torch.int64)
        )


def refuse_to_fetch(config: Any, checkpoints: Path) -> None:
    """See that a run that is continued, which may be somebody else's, needs no published weights for its students.

    Args:
        config: the experiment's.
        checkpoints: the folder of the run's.

    Raises:
        ValueError: it does, since it has no checkpoint.
    """
    if not config.resume or any(checkpoints.glob("*.ckpt")):
        return
    learners = {"student": config.student}
    if config.scheme.get("name") == "mutual":
        learners |= {f"scheme.peers.{name}": peer for name, peer in peer_settings(config).items()}
    for name, member in learners.items():
        if member.get("pretrained"):
            raise ValueError(
                f"resume must be a run with a checkpoint where {name}.pretrained=true, since nothing is downloaded "
                f"for it, got none in {checkpoints}; run its command again"
            )


def refuse_single_samples(config: Any, data: Data) -> None:
    """See that no batch is of one sample where a network normalises over the batch; before anything is trained.

    Raises:
        ValueError: the student's or a teacher's is; or a teacher's recipe does not fit the data.
    """
    trainer = config.trainer
    counted = isinstance(trainer.devices, int) and not trainer.sync_batchnorm
    ranks = trainer.devices * trainer.num_nodes if counted else 1
    if data.student.smallest_batch // ranks <= 1:
        learners = {"student": build_student(config)}
        learners |= build_peers(config) if config.scheme.get("name") == "mutual" else {}
        for learner in learners.values():
            _refuse_single_samples(learner, "dataset.batch_size", config.dataset.batch_size, config.dataset)
    for setting, member in teachers(config).items():
        if is_to_be_trained(member, config, data) and data.for_teacher(member, setting).smallest_batch <= 1:
            built = build_network(member, setting, config.dataset)
            _refuse_single_samples(built, f"{setting}.recipe.batch_size", member.recipe.batch_size, config.dataset)


def _refuse_single_samples(built: nn.Module, setting: str, size: int, dataset: Any) -> None:
    try:
        with torch.no_grad():
            built.train()(torch.zeros(1, *dataset.input_shape))
    except ValueError as error:  # batch normalisation's: of more than one number a channel it takes a single sample
        rule = "must leave at least 2 samples in each batch for a network with batch normalisation"
        raise ValueError(f"{setting} {rule}, got {size}") from error


def _rehearse_loss(soft_loss: nn.Module, dataset: Any) -> None:
    """What a loss refuses or warns of (two classes, say) is heard now."""
    logits = torch.randn(2, 4, dataset.num_outputs)
    target = torch.zeros(4, dtype=torch.int64)
    if dataset.task == "multilabel":
        target = torch.zeros(4, dataset.num_outputs)
    soft_loss(logits[0], logits[1], target)


def _rehearse_recipe(recipe: Any, prefix: str) -> None:
    setting = f"{prefix}optimizer"
    try:
        optimizer = instantiate(recipe.optimizer, "optimizer")([nn.Parameter(torch.zeros(1))])
        setting = f"{prefix}scheduler"
        instantiate(recipe.scheduler, "scheduler")(optimizer, total_steps=10)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{setting}: {error}") from error
