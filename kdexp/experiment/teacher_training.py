"""The training of a teacher by its recipe."""

from pathlib import Path

import torch
from torch import nn

from kdexp.config.identity import has_attack
from kdexp.config.objects import instantiate
from kdexp.config.require import Values
from kdexp.data.settings import Dataset
from kdexp.experiment.data import Data
from kdexp.experiment.members import new_task
from kdexp.experiment.networks import build_network, laid_out, prepare
from kdexp.metrics import monitor
from kdexp.schemes.base import SchemeContext, scheme_of
from kdexp.training.fit import fit
from kdexp.weights import load_weights


def train_teacher(
    member: Values,
    setting: str,
    dataset: Dataset,
    task: Values,
    data: Data,
    folder: Path,
    *,
    owner: str,
    accelerator: str,
    device: torch.device,
) -> nn.Module:
    """A teacher with the weights of its best epoch, on the CPU.

    Args:
        member: its configuration in plain values.
        setting: its name, for messages.
        dataset: the settings of the data set.
        task: the configuration of what a batch becomes.
        data: the experiment's.
        folder: where an interrupted training may be continued.
        owner: identifies the training, see `kdexp.training.checkpoints.refuse_foreign`.
        accelerator: the student's.
        device: where work that needs no Trainer is done.
    """
    recipe = member["recipe"]
    torch.manual_seed(recipe["seed"])
    own_task = new_task(task, dataset, recipe["label_smoothing"])
    network = laid_out(build_network(member, setting, dataset, task), recipe["channels_last"], device)
    own = data.for_teacher(member, setting)
    prepare(network, lambda: own.splits)
    scheme = scheme_of(recipe.get("scheme"), f"{setting}.recipe.scheme")
    module = scheme.distiller(SchemeContext(dataset))(
        network,
        instantiate(recipe["optimizer"], "optimizer"),
        task=own_task,
        scheduler=instantiate(recipe["scheduler"], "scheduler"),
        seed=recipe["seed"],
    )
    module.monitor, module.tie_breaker = monitor.rule(
        recipe.get("monitor"),
        own_task.monitor,
        attacked=has_attack(recipe.get("scheme")),
    )
    settings = {
        "accelerator": accelerator,
        "devices": 1,
        "precision": recipe["precision"],
        "max_epochs": recipe["max_epochs"],
        "gradient_clip_val": recipe["gradient_clip_val"],
    }
    fitted = fit(module, own, folder, settings, owner=owner, title="teacher")
    load_weights(network, fitted.best, "teacher.weights")
    return network.cpu()
