"""The teacher of an experiment, trained first if need be."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp import run_folder
from kdexp.config.compose import plain
from kdexp.config.objects import instantiate
from kdexp.experiment.data import Data
from kdexp.experiment.distillers import adversarial
from kdexp.experiment.keys import input_statistics, is_to_be_trained, teacher_key, weights_file
from kdexp.experiment.members import teachers
from kdexp.experiment.networks import build_network, laid_out
from kdexp.metrics import monitor
from kdexp.models.benchmark_names import BENCHMARK_NAMES
from kdexp.teacher.store import load_or_train
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller
from kdexp.training.fit import fit
from kdexp.weights import load_weights

log = logging.getLogger(__name__)


def build_teacher(
    config: Any, data: Data, *, may_train: bool = True, kind: Callable[..., Teacher] = Teacher
) -> Teacher | None:
    """The frozen teacher with its weights, trained first if need be.

    Args:
        config: the experiment's.
        data: its data.
        may_train: see below.
        kind: its class, or what makes one of what `Teacher` takes.

    Returns:
        The teacher; None for a control, and for a teacher that would have to be trained when it may not be.
    """
    named = teachers(config)
    if not named:
        return None
    if not may_train and any(is_to_be_trained(member, config, data) for member in named.values()):
        return None
    networks = [
        laid_out(_teacher_network(member, name, config, data), config.trainer.channels_last, config)
        for name, member in named.items()
    ]
    return kind(
        networks,
        task=config.dataset.task,
        data=(list(config.dataset.mean), list(config.dataset.std)),
        expects=[input_statistics(member, net) for member, net in zip(named.values(), networks, strict=True)],
        precision=config.teacher.precision,
    )


def _teacher_network(member: Any, setting: str, config: Any, data: Data) -> nn.Module:
    if member.weights == "pretrained":
        return _pretrained(member, setting, config.dataset)
    if member.weights == "built":
        return build_network(member, setting, config.dataset)
    weights = weights_file(member, config, data)
    built = build_network(member, setting, config.dataset, pretrained=False)  # before it is said what becomes of it
    if member.weights == "auto":
        name = member.get("name") or member._target_.rsplit(".", 1)[-1]
        state = "reused from" if weights.is_file() else "trained once, kept in"
        log.info("%s %s: %s %s", setting, name, state, weights.parent)
        limit = config.trainer.limit_train_batches
        if limit is not None and not weights.is_file():
            log.info(
                "%s is trained on all its batches: trainer.limit_train_batches=%s limits the student alone "
                "(quick=true makes both small)",
                setting,
                limit,
            )
        train = partial(_train_teacher, member, setting, config, data, weights.parent.name)
        load_or_train(weights.parent, teacher_key(member, config, data), train)
    words = load_weights(
        built,
        run_folder.verified(weights, f"{setting}.weights"),
        f"{setting}.weights",
        key=member.get("weights_key"),
        rename=plain(member).get("rename"),
        dialects=BENCHMARK_NAMES,
    )
    if words:
        log.info("%s.weights %s: %s", setting, weights, words)
    return built


def _pretrained(member: Any, setting: str, dataset: Any) -> nn.Module:
    if "pretrained" not in member:
        rule = "must be auto or a file for a network that nobody publishes weights of"
        raise ValueError(f"{setting}.weights {rule}, got pretrained for {member._target_}")
    fresh = build_network(member, setting, dataset, pretrained=False)  # before anything is downloaded
    published = getattr(fresh, "pretrained_cfg", {}).get("num_classes", 1000)  # timm says it; torchvision's: ImageNet
    if dataset.num_outputs != published:
        rule = (
            f"must be auto or a file when the data set does not have the {published} classes of the published weights"
        )
        raise ValueError(f"{setting}.weights {rule}, got pretrained with dataset={dataset.name}")
    return build_network(member, setting, dataset, pretrained=True)


def _train_teacher(member: Any, setting: str, config: Any, data: Data, key: str, folder: Path) -> nn.Module:
    recipe = member.recipe
    torch.manual_seed(recipe.seed)
    learner = laid_out(build_network(member, setting, config.dataset), recipe.channels_last, config)
    own = data.for_teacher(member, setting)
    scheme = recipe.get("scheme") or {}
    kind = adversarial(scheme, config.dataset, f"{setting}.recipe.scheme") if scheme else Distiller
    module = kind(
        learner,
        instantiate(recipe.optimizer, "optimizer"),
        task=config.dataset.task,
        num_outputs=config.dataset.num_outputs,
        scheduler=instantiate(recipe.scheduler, "scheduler"),
        label_smoothing=recipe.label_smoothing,
        seed=recipe.seed,
    )
    module.monitor, module.tie_breaker = monitor.rule(recipe.get("monitor"), config.dataset, attacked=bool(scheme))
    settings = {
        "accelerator": config.trainer.accelerator,
        "devices": 1,
        "precision": recipe.precision,
        "max_epochs": recipe.max_epochs,
        "gradient_clip_val": recipe.gradient_clip_val,
    }
    fitted = fit(module, own, folder, settings, owner=key, title="teacher")
    load_weights(learner, fitted.best, "teacher.weights")
    return learner.cpu()
