"""What identifies a trained teacher and its cached outputs."""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp import __version__
from kdexp.atomic import sha256
from kdexp.config import quick
from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint
from kdexp.config.objects import target
from kdexp.experiment.data import Data
from kdexp.experiment.members import teachers
from kdexp.experiment.networks import NETWORK_KEYS, device_for, is_channels_last
from kdexp.metrics import monitor
from kdexp.teacher.cached_outputs import SplitName
from kdexp.teacher.output_codec import OutputCodec
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest


def input_statistics(member: Any, built: nn.Module) -> tuple[list[float], list[float]]:
    """What the network's inputs were normalised with when it was trained."""
    if member.weights != "pretrained":
        return list(member.mean), list(member.std)
    published = getattr(built, "pretrained_cfg", {})
    return (
        list(published.get("mean", (0.485, 0.456, 0.406))),  # of ImageNet, in all of torchvision's weights
        list(published.get("std", (0.229, 0.224, 0.225))),
    )


def is_to_be_trained(member: Any, config: Any, data: Data) -> bool:
    """Whether a teacher's weights are to be trained and are not in the store yet."""
    return member.weights == "auto" and not weights_file(member, config, data).is_file()


def weights_file(member: Any, config: Any, data: Data) -> Path:
    """Where a teacher's weights lie: the file that was named, or its place in the store."""
    if member.weights != "auto":
        return Path(member.weights)
    key = fingerprint(teacher_key(member, config, data))
    return Path(config.store_dir) / "teachers" / key / "teacher.safetensors"


def teacher_key(member: Any, config: Any, data: Data) -> dict[str, Any]:
    """All that a trained teacher's weights depend on."""
    return {
        "network": {key: value for key, value in plain(member).items() if key not in NETWORK_KEYS},
        "recipe": _recipe(member, config.dataset),
        "statistics": [list(member.mean), list(member.std)],
        "data": {
            k: config.dataset[k] for k in ("name", "task", "num_classes", "val_fraction", "split_seed", "drop_last")
        },
        "content": data.content,
        **quick.mark(config),
    }


def _recipe(member: Any, dataset: Any) -> dict[str, Any]:
    """A teacher's recipe without what decides nothing in it."""
    recipe: dict[str, Any] = plain(member.recipe)
    if "monitor" in recipe:  # an older kdexp's has none
        chosen_by, _ = monitor.rule(recipe.pop("monitor"), dataset, attacked=bool(recipe.get("scheme")))
        recipe |= {"monitor": chosen_by} if recipe["max_epochs"] > 1 else {}
    if not recipe["label_noise"]:
        del recipe["label_noise_kind"]
        if recipe["train_fraction"] == recipe["imbalance_ratio"] == 1 and not recipe["unlabeled_fraction"]:
            del recipe["subset_seed"]
    return recipe


def answers_key(config: Any, frozen: Teacher, data: Data, split: SplitName, record: OutputCodec) -> dict[str, Any]:
    """All that a teacher's answers to a split depend on; temperature, alpha and the student do not matter."""
    members = teachers(config).values()
    augmented = split == "train" and config.augment.views != 0
    transforms = plain(config.augment.transforms) if augmented else []
    index = getattr(data.student.splits, split).index
    place = device_for(config.trainer.accelerator)
    called = [*(target(member, "network") for member in members), *(target(each, "transform") for each in transforms)]
    code = [Path(inspect.getfile(one)) for one in called]
    code += [Path(__file__).parent / name for name in _ANSWERING]
    return {
        "weights": [state_digest(network) for network in frozen.networks],
        "networks": [{k: v for k, v in plain(member).items() if k not in NETWORK_KEYS} for member in members],
        "statistics": [input_statistics(member, net) for member, net in zip(members, frozen.networks, strict=True)],
        "task": config.dataset.task,
        "precision": config.teacher.precision,
        "features": list(frozen.paths) if split == "train" else [],
        "record": str(record.dtype),
        "content": data.content,
        "split": [split, hashlib.sha256(index.numpy().tobytes()).hexdigest()],
        "normalised": [list(config.dataset.mean), list(config.dataset.std)],
        "channels_last": [is_channels_last(net, config.trainer.channels_last, config) for net in frozen.networks],
        "augment": [transforms, config.augment.seed if augmented else None],
        "device": place.type if place.type == "cpu" else torch.cuda.get_device_name(place),
        "versions": [torch.__version__, __version__, torch.backends.cpu.get_cpu_capability()],
        "code": [sha256(file) for file in code],
    }


# Our own files that a teacher's kept answers depend on.
_ANSWERING = ("features.py", "teacher.py", "teacher_cache.py", "data/counter.py", "data/loading.py")
