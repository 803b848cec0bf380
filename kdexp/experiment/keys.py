"""What identifies a trained teacher and its cached outputs."""

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

import kdexp
from kdexp.atomic import sha256
from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint, has_attack
from kdexp.config.objects import target
from kdexp.config.renamed import before
from kdexp.experiment.data import Data
from kdexp.experiment.networks import NETWORK_KEYS, device_for, is_channels_last
from kdexp.metrics import monitor
from kdexp.teacher.cached_outputs import SplitName
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest


def input_statistics(member: DictConfig, built: nn.Module) -> tuple[list[float], list[float]]:
    """What the network's inputs were normalised with when it was trained."""
    if member.weights != "pretrained":
        return list(member.mean), list(member.std)
    published = getattr(built, "pretrained_cfg", {})
    return (
        list(published.get("mean", (0.485, 0.456, 0.406))),  # of ImageNet, in all of torchvision's weights
        list(published.get("std", (0.229, 0.224, 0.225))),
    )


def weights_file(member: DictConfig, store_dir: str, key: Mapping[str, Any]) -> Path:
    """Where a teacher's weights lie: the file that was named, or its place in the store.

    Args:
        member: its configuration.
        store_dir: the store.
        key: see `teacher_key`.
    """
    if member.weights != "auto":
        return Path(member.weights)
    return Path(store_dir) / "teachers" / fingerprint(key) / "teacher.safetensors"


def teacher_key(member: DictConfig, dataset: DictConfig, content: str, mark: Mapping[str, Any]) -> dict[str, Any]:
    """All that a trained teacher's weights depend on.

    Args:
        member: its configuration.
        dataset: the configuration of the data set.
        content: digest of its data.
        mark: see `kdexp.config.quick.mark`.
    """
    return {
        "network": {key: value for key, value in plain(member).items() if key not in NETWORK_KEYS},
        "recipe": _recipe(member, dataset),
        "statistics": [list(member.mean), list(member.std)],
        "data": {k: dataset[k] for k in ("name", "task", "num_classes", "val_fraction", "split_seed", "drop_last")},
        "content": content,
        **mark,
    }


def _recipe(member: DictConfig, dataset: DictConfig) -> dict[str, Any]:
    """A teacher's recipe without what decides nothing in it."""
    recipe: dict[str, Any] = before(plain(member.recipe))
    if "monitor" in recipe:  # an older kdexp's has none
        chosen_by, _ = monitor.rule(recipe.pop("monitor"), dataset, attacked=has_attack(recipe.get("scheme")))
        recipe |= {"monitor": chosen_by} if recipe["max_epochs"] > 1 else {}
    if not recipe["label_noise"]:
        del recipe["label_noise_kind"]
        if recipe["train_fraction"] == recipe["imbalance_ratio"] == 1 and not recipe["unlabeled_fraction"]:
            del recipe["subset_seed"]
    return recipe


def outputs_key(
    config: DictConfig, members: Mapping[str, DictConfig], frozen: Teacher, data: Data, split: SplitName, record: str
) -> dict[str, Any]:
    """All that a teacher's outputs for a split depend on; temperature, alpha and the student do not matter.

    Args:
        config: the experiment's.
        members: the configuration of each teacher.
        frozen: the teacher.
        data: its data.
        split: of them.
        record: what is cached of a sample, see `kdexp.teacher.output_codec.OutputCodec`.
    """
    augmented = split == "train" and config.augment.views != 0
    transforms = plain(config.augment.transforms) if augmented else []
    index = getattr(data.student.splits, split).index
    place = device_for(config.trainer.accelerator)
    every = list(members.values())
    called = [*(target(member, "network") for member in every), *(target(each, "transform") for each in transforms)]
    code = [Path(inspect.getfile(one)) for one in called]
    code += [Path(kdexp.__file__).parent / name for name in _CODE_OF_OUTPUTS]
    return {
        "weights": [state_digest(network) for network in frozen.networks],
        "networks": [{k: v for k, v in plain(member).items() if k not in NETWORK_KEYS} for member in every],
        "statistics": [input_statistics(member, net) for member, net in zip(every, frozen.networks, strict=True)],
        "task": config.dataset.task,
        "precision": config.teacher.precision,
        "features": list(frozen.paths) if split == "train" else [],
        "record": record,
        "content": data.content,
        "split": [split, hashlib.sha256(index.numpy().tobytes()).hexdigest()],
        "normalised": [list(config.dataset.mean), list(config.dataset.std)],
        "channels_last": [is_channels_last(net, config.trainer.channels_last, place) for net in frozen.networks],
        "augment": [transforms, config.augment.seed if augmented else None],
        "device": place.type if place.type == "cpu" else torch.cuda.get_device_name(place),
        "versions": [torch.__version__, kdexp.__version__, torch.backends.cpu.get_cpu_capability()],
        "code": [sha256(file) for file in code],
    }


_CODE_OF_OUTPUTS = (
    "features.py",
    "teacher/teacher.py",
    "teacher/output_codec.py",
    "teacher/cached_outputs.py",
    "data/loaders.py",
    "data/data_module.py",
    "data/stateless_rng.py",
)
"""Our own files that a teacher's cached outputs depend on."""
