"""What identifies a trained teacher."""

import inspect
from pathlib import Path

from torch import nn

from kdexp.atomic import sha256
from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint, has_attack
from kdexp.config.objects import target
from kdexp.config.renamed import before, without_added
from kdexp.config.require import Values
from kdexp.data.settings import Dataset
from kdexp.experiment.members import new_task
from kdexp.experiment.networks import NETWORK_KEYS, is_of_module
from kdexp.metrics import monitor


def input_statistics(member: Values, built: nn.Module) -> tuple[list[float], list[float]]:
    """What the network's inputs were normalised with when it was trained."""
    if member["weights"] != "pretrained":
        return list(member["mean"]), list(member["std"])
    published = getattr(built, "pretrained_cfg", {})
    return (
        list(published.get("mean", (0.485, 0.456, 0.406))),  # of ImageNet, in all of torchvision's weights
        list(published.get("std", (0.229, 0.224, 0.225))),
    )


def weights_file(member: Values, store_dir: str, key: Values) -> Path:
    """Where a teacher's weights lie: the file that was named, or its place in the store.

    Args:
        member: its configuration.
        store_dir: the store.
        key: see `teacher_key`.
    """
    if member["weights"] != "auto":
        return Path(member["weights"])
    return Path(store_dir) / "teachers" / fingerprint(key) / "teacher.safetensors"


def teacher_key(member: Values, dataset: Dataset, task: Values, content: str, mark: Values) -> Values:
    """All that a trained teacher's weights depend on.

    Args:
        member: its configuration.
        dataset: the configuration of the data set.
        task: that of what a batch becomes.
        content: digest of its data.
        mark: see `kdexp.config.quick.mark`.
    """
    network = {key: value for key, value in plain(member).items() if key not in NETWORK_KEYS}
    return {
        "network": network,
        "recipe": _recipe(member, dataset, task),
        "statistics": [list(member["mean"]), list(member["std"])],
        "data": before({"dataset": {key: getattr(dataset, key) for key in _OF_DATA}})["dataset"],
        "content": content,
        **without_added({"task": _of_training(task)}),
        **_files(network),
        **_code(network),
        **mark,
    }


def _files(network: Values) -> Values:
    """Digests of the files that a network of texts is built from; nothing where there are none."""
    file, folder = (network.get("tokenizer") or {}).get("file"), network.get("folder")
    named = [Path(file)] if file else []
    named += [Path(folder) / name for name in ("config.json", "tokenizer.json", "model.safetensors")] if folder else []
    found = {path.name: sha256(path) for path in named if path.is_file()}
    return {"files": found} if found else {}


def _code(network: Values) -> Values:
    """Digest of the file of a class that was named on the command line (teacher=module); nothing of any other."""
    if not is_of_module(network):
        return {}
    return {"code": sha256(Path(inspect.getfile(target(network, "network"))))}


def _of_training(task: Values) -> Values:
    """Without the settings by which nothing but test is measured."""
    of_test = getattr(target(task, "task"), "of_test", ())
    return {name: value for name, value in plain(task).items() if name not in of_test}


_OF_DATA = ("name", "kind", "num_classes", "val_fraction", "split_seed", "drop_last")


def _recipe(member: Values, dataset: Dataset, task: Values) -> Values:
    """A teacher's recipe without what decides nothing in it."""
    recipe = before(plain(member["recipe"]))
    if "monitor" in recipe:  # an older kdexp's has none
        usual = new_task(task, dataset).monitor
        chosen_by, _ = monitor.rule(recipe.pop("monitor"), usual, attacked=has_attack(recipe.get("scheme")))
        recipe |= {"monitor": chosen_by} if recipe["max_epochs"] > 1 else {}
    if not recipe["label_noise"]:
        del recipe["label_noise_kind"]
        if recipe["train_fraction"] == recipe["imbalance_ratio"] == 1 and not recipe["unlabeled_fraction"]:
            del recipe["subset_seed"]
    return recipe
