"""The teacher of an experiment, trained first if need be."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from kdexp import run_folder
from kdexp.config import quick
from kdexp.config.require import Values
from kdexp.data.settings import Dataset
from kdexp.experiment.data import Data
from kdexp.experiment.fitted_teachers import fitted
from kdexp.experiment.keys import input_statistics, teacher_key, weights_file
from kdexp.experiment.networks import build_network, laid_out, prepare
from kdexp.experiment.teacher_training import train_teacher
from kdexp.models.benchmark_names import BENCHMARK_NAMES
from kdexp.teacher.trained_teachers import load_or_train
from kdexp.weights import load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teachers:
    """The networks of an experiment's teachers, each with its weights.

    Attributes:
        members: the configuration of each teacher in plain values, by its setting.
        data: the experiment's.
        dataset: its settings.
        task: the configuration of what a batch becomes.
        accelerator: the student's.
        channels_last: the student's.
        limit_train_batches: the student's.
        store_dir: where trained teachers are kept.
        is_quick: whether they are trained on few samples.
        device: where work that needs no Trainer is done.
    """

    members: Mapping[str, Values]
    data: Data
    dataset: Dataset
    task: Values
    accelerator: str
    channels_last: bool | str
    limit_train_batches: int | float | None
    store_dir: str
    is_quick: bool
    device: torch.device

    def networks(self) -> list[nn.Module]:
        """The networks; those that are to be trained and are not in the store yet are trained, after all others."""
        trained_last = sorted(self.members, key=lambda setting: self.members[setting]["weights"] == "auto")
        found = {setting: self._fitted(setting) for setting in trained_last}
        return [found[setting] for setting in self.members]

    def _fitted(self, setting: str) -> nn.Module:
        member = self.members[setting]
        network = fitted(self._network(setting, member), member, setting, self.data)
        return laid_out(network, self.channels_last, self.device)

    def input_statistics(self, built: Sequence[nn.Module]) -> list[tuple[list[float], list[float]]]:
        """What the inputs of each network were normalised with when it was trained: mean and standard deviation."""
        return [input_statistics(*each) for each in zip(self.members.values(), built, strict=True)]

    def to_be_trained(self) -> dict[str, Values]:
        """Those of the teachers that would have to be trained."""
        return {
            setting: member
            for setting, member in self.members.items()
            if member["weights"] == "auto" and not weights_file(member, self.store_dir, self._key(member)).is_file()
        }

    def _key(self, member: Values) -> Values:
        return teacher_key(member, self.dataset, self.task, self.data.content, quick.mark(self.is_quick))

    def _network(self, setting: str, member: Values) -> nn.Module:
        if member["weights"] == "pretrained":
            return _pretrained(member, setting, self.dataset, self.task)
        if member["weights"] == "built":
            built = build_network(member, setting, self.dataset, self.task)
            prepare(built, lambda: self.data.for_teacher(member, setting).splits)
            return built
        if member["weights"] == "random":
            torch.manual_seed(member["recipe"]["seed"])
            built = build_network(member, setting, self.dataset, self.task, pretrained=False)
            prepare(built, lambda: self.data.for_teacher(member, setting).splits)
            return built
        # Before it is said what becomes of it.
        built = build_network(member, setting, self.dataset, self.task, pretrained=False)
        weights = self._trained(setting, member) if member["weights"] == "auto" else Path(member["weights"])
        return _with_weights(built, member, weights, setting)

    def _trained(self, setting: str, member: Values) -> Path:
        """The file of the trained teacher in the store; trained now if it is not there."""
        key = self._key(member)
        weights = weights_file(member, self.store_dir, key)
        name = member.get("name") or member["_target_"].rsplit(".", 1)[-1]
        state = "reused from" if weights.is_file() else "training it now; later runs reuse it from"
        log.info("%s %s: %s %s", setting, name, state, weights.parent)
        limit = self.limit_train_batches
        if limit is not None and not weights.is_file():
            log.info(
                "%s is trained on all its batches: trainer.limit_train_batches=%s limits the student alone "
                "(quick=true makes both small)",
                setting,
                limit,
            )
        train = partial(
            train_teacher,
            member,
            setting,
            self.dataset,
            self.task,
            self.data,
            owner=weights.parent.name,
            accelerator=self.accelerator,
            device=self.device,
        )
        load_or_train(weights.parent, key, train)
        return weights


def _with_weights(network: nn.Module, member: Values, weights: Path, setting: str) -> nn.Module:
    """The network of a teacher with its weights, by the names that its settings and published teachers have for them.

    Args:
        network: the teacher's.
        member: its configuration, in plain values.
        weights: the file.
        setting: the teacher's, for messages.
    """
    words = load_weights(
        network,
        run_folder.verified(weights, f"{setting}.weights"),
        f"{setting}.weights",
        key=member.get("weights_key"),
        rename=member.get("rename"),
        dialects=BENCHMARK_NAMES,
    )
    if words:
        log.info("%s.weights %s: %s", setting, weights, words)
    return network


def _pretrained(member: Values, setting: str, dataset: Dataset, task: Values) -> nn.Module:
    if "pretrained" not in member:
        rule = "must be auto or a file for a network that nobody publishes weights of"
        raise ValueError(f"{setting}.weights {rule}, got pretrained for {member['_target_']}")
    fresh = build_network(member, setting, dataset, task, pretrained=False)  # before anything is downloaded
    published = getattr(fresh, "pretrained_cfg", {}).get("num_classes", 1000)  # timm says it; torchvision's: ImageNet
    if member["num_classes"] != published:
        rule = (
            f"must be auto or a file when the data set does not have the {published} classes of the published weights"
        )
        raise ValueError(f"{setting}.weights {rule}, got pretrained with dataset={dataset.name}")
    return build_network(member, setting, dataset, task, pretrained=True)
